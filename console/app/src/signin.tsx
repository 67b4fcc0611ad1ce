import { useEffect, useRef, useState } from "preact/hooks";

import { asRefusal, type Identity, type Refusal, signIn } from "./api.ts";
import { Stamp, ThemeChoice } from "./frame.tsx";
import { sentence } from "./ui.tsx";

export function SignIn({ why, done }: { why: Refusal | undefined; done: (i: Identity) => void }) {
  const [error, setError] = useState<Refusal | undefined>(why);
  const [busy, setBusy] = useState(false);
  const name = useRef<HTMLInputElement>(null);
  const password = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Sign in · Carnet";
    name.current?.focus();
  }, []);
  const submit = (e: Event): void => {
    e.preventDefault();
    if (busy || !name.current || !password.current) return;
    setBusy(true);
    setError(undefined);
    signIn(name.current.value, password.current.value).then(done, (e: unknown) => {
      setBusy(false);
      setError(asRefusal(e));
      password.current?.select();
    });
  };
  return (
    <main class="door">
      <form onSubmit={submit} aria-describedby={error ? "why" : undefined}>
        <h1>
          <Stamp /> Carnet
        </h1>
        <p class="soft">What every world gets of a thing, and what it doesn’t.</p>
        <label>
          Name
          <input ref={name} name="name" autocomplete="username" autocapitalize="none" spellcheck={false} required maxLength={64} />
        </label>
        <label>
          Password
          <input ref={password} name="password" type="password" autocomplete="current-password" required maxLength={256} />
        </label>
        <div role="alert" id="why">
          {error && (
            <p class="failure">
              {sentence(error.reason)} {error.fix !== "" && sentence(error.fix)}
            </p>
          )}
        </div>
        <button type="submit" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
      <ThemeChoice />
    </main>
  );
}
