// Dark and light: the system's, or chosen. The style sheet does the rest.
export type Theme = "system" | "light" | "dark";

const place = "carnet-theme";

export function theme(): Theme {
  const t = localStorage.getItem(place);
  return t === "light" || t === "dark" ? t : "system";
}

export function setTheme(t: Theme): void {
  if (t === "system") {
    localStorage.removeItem(place);
    delete document.documentElement.dataset["theme"];
  } else {
    localStorage.setItem(place, t);
    document.documentElement.dataset["theme"] = t;
  }
  dispatchEvent(new Event("themechange"));
}

/** A colour of the style sheet, as it is now. */
export const colour = (name: string): string => {
  const probe = document.createElement("i");
  probe.className = "probe";
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const c = getComputedStyle(probe).color;
  probe.remove();
  return c;
};

/** Calls f when the colours change. */
export function onTheme(f: () => void): () => void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  addEventListener("themechange", f);
  system.addEventListener("change", f);
  return () => {
    removeEventListener("themechange", f);
    system.removeEventListener("change", f);
  };
}
