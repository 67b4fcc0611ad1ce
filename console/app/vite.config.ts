import { defineConfig } from "vite";

// The output must not depend on where or when it is built: make test builds it
// again and compares the bytes.
export default defineConfig({
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // the policy has no data: URLs
    sourcemap: false,
  },
});
