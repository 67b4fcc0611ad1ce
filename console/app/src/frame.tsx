// What the page and the sign-in have in common.
import { useState } from "preact/hooks";

import { setTheme, type Theme, theme } from "./theme.ts";

export const Stamp = () => (
  <svg class="stamp" viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
    <circle cx="16" cy="16" r="13" fill="none" stroke="currentColor" stroke-width="2.4" stroke-dasharray="3.6 2.3" />
    <path d="M20.6 12.2a6 6 0 1 0 0 7.6" fill="none" stroke="currentColor" stroke-width="2.8" stroke-linecap="round" />
  </svg>
);

export function ThemeChoice() {
  const [t, setT] = useState(theme());
  return (
    <label class="theme">
      <span>Theme</span>
      <select
        value={t}
        onChange={(e) => {
          const chosen = e.currentTarget.value as Theme;
          setTheme(chosen);
          setT(chosen);
        }}
      >
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}
