import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** Rows that are drawn above and below the visible ones. */
const MARGIN_ROWS = 3;

export interface Window {
  columns: number;
  first: number;
  last: number;
  height: number;
  rowHeight: number;
}

/** Which items of a long grid to draw: those in the part of the page that is visible, and a few beside. */
export function useWindow(count: number, tile: { width: number; height: number; gap: number }) {
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ columns: 1, top: 0, bottom: 20 });
  const rowHeight = tile.height + tile.gap;
  useLayoutEffect(() => {
    let frame = 0;
    const measure = () => {
      frame = 0;
      const box = element.current?.getBoundingClientRect();
      if (!box) return;
      const columns = Math.max(1, Math.floor((box.width + tile.gap) / (tile.width + tile.gap)));
      const top = Math.floor(-box.top / rowHeight) - MARGIN_ROWS;
      const bottom = Math.ceil((innerHeight - box.top) / rowHeight) + MARGIN_ROWS;
      setView((now) => (now.columns === columns && now.top === top && now.bottom === bottom ? now : { columns, top, bottom }));
    };
    const ask = () => {
      frame ||= requestAnimationFrame(measure);
    };
    measure();
    addEventListener("scroll", ask, { passive: true });
    addEventListener("resize", ask);
    const observer = new ResizeObserver(ask);
    observer.observe(element.current!);
    // Elements above the grid may change their height, which moves the grid.
    observer.observe(document.body);
    return () => {
      cancelAnimationFrame(frame);
      removeEventListener("scroll", ask);
      removeEventListener("resize", ask);
      observer.disconnect();
    };
  }, [rowHeight, tile.width, tile.gap]);
  const rows = Math.ceil(count / view.columns);
  const first = Math.min(rows, Math.max(0, view.top)) * view.columns;
  const last = Math.min(count, Math.max(0, view.bottom) * view.columns);
  const found: Window = { columns: view.columns, first, last, height: Math.max(0, rows * rowHeight - tile.gap), rowHeight };
  return { element, window: found };
}
