import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { asRefusal, follow, type LiveState, type Measurement, type Refusal } from "./api.ts";

export interface Asked<T> {
  data: T | undefined;
  error: Refusal | undefined;
  again: () => void;
}

/**
 * Asks once, and every so often while somebody looks. What was there stays while
 * asking fails, beside the error.
 */
export function useAsk<T>(what: (signal: AbortSignal) => Promise<T>, on: readonly unknown[], every = 0): Asked<T> {
  const [data, setData] = useState<T>();
  const [error, setError] = useState<Refusal>();
  const [turn, setTurn] = useState(0);
  const asked = useRef(what);
  asked.current = what;
  useEffect(() => {
    setData(undefined);
    setError(undefined);
  }, on);
  useEffect(() => {
    const leave = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const go = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          const d = await asked.current(leave.signal);
          if (leave.signal.aborted) return;
          setData(() => d);
          setError(undefined);
        } catch (e) {
          if (leave.signal.aborted) return;
          setError(asRefusal(e));
        }
      }
      if (every > 0) timer = setTimeout(() => void go(), every);
    };
    void go();
    return () => {
      leave.abort();
      clearTimeout(timer);
    };
  }, [...on, turn, every]);
  return { data, error, again: useCallback(() => setTurn((t) => t + 1), []) };
}

/** Follows an avatar while the page shows it. */
export function useLive(world: string, avatar: string, got: (ms: Measurement[]) => void, on = true): LiveState {
  const [is, setIs] = useState<LiveState>("connecting");
  const taker = useRef(got);
  taker.current = got;
  useEffect(() => {
    if (!on) return;
    return follow(world, avatar, (ms) => taker.current(ms), setIs);
  }, [world, avatar, on]);
  return is;
}

/** How wide an element is. */
export function useWidth<T extends Element>(): [(e: T | null) => void, number] {
  const [width, setWidth] = useState(0);
  const watch = useRef<ResizeObserver | undefined>(undefined);
  const take = useCallback((e: T | null) => {
    watch.current?.disconnect();
    if (e === null) return;
    watch.current = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    watch.current.observe(e);
  }, []);
  return [take, width];
}

/** Where the page is: what stands behind the #. */
export function usePlace(): string[] {
  const read = (): string[] => location.hash.replace(/^#\/?/, "").split("/").filter((s) => s !== "").map(decode);
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const moved = (): void => setPlace(read());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s;
  }
}

/** A link to a place. */
export const to = (...place: string[]): string => "#/" + place.map(encodeURIComponent).join("/");
