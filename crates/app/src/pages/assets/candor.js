// The few lines that the pages add to htmx: dialogs that open above the page, and one stream that says which parts changed.
"use strict";

(() => {
  const dialog = document.getElementById("dialog");
  const stale = document.getElementById("stale");

  // What htmx put into the dialog is shown; its field with `autofocus` gets the focus.
  document.addEventListener("htmx:after:swap", () => {
    if (dialog.childElementCount > 0 && !dialog.open) dialog.showModal();
  });
  // One that is going is empty at once: a part that is swapped meanwhile would show it again.
  const empty = () => dialog.replaceChildren();
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) {
      event.preventDefault();
      empty();
      dialog.close();
    }
  });
  dialog.addEventListener("cancel", empty);
  dialog.addEventListener("close", empty);

  // Parts with `data-live` carry the revision that they show. The stream names those that have a newer one.
  let stream = null;
  const parts = () => [...document.querySelectorAll("[data-live]")];
  const listen = () => {
    if (stream) stream.close();
    if (document.hidden) return;
    const shown = parts().map((part) => part.dataset.live + ":" + part.dataset.revision);
    if (shown.length === 0) return;
    stream = new EventSource("/live?" + new URLSearchParams({ shown: shown.join(",") }));
    stream.onopen = () => { stale.hidden = true; };
    stream.onmessage = (event) => {
      for (const name of event.data.split(",")) {
        const part = parts().find((part) => part.dataset.live === name);
        if (part) htmx.trigger(part, "refresh");
      }
    };
    stream.onerror = () => {
      stale.hidden = false;
      // A browser tries again by itself only while it holds the connection to be good.
      if (stream.readyState === EventSource.CLOSED) setTimeout(again, 2000);
    };
  };
  // One that was let out sees that, instead of waiting for ever.
  const again = async () => {
    const answer = await fetch("/parts/jobs").catch(() => null);
    if (answer?.status === 403) location.reload();
    else listen();
  };
  // A browser opens only a few connections to one place: pages that nobody sees give theirs back.
  const quiet = () => stream && stream.close();
  document.addEventListener("visibilitychange", () => document.hidden ? quiet() : listen());
  // Leaving a page ends what it was about to fetch; one that stays after all, for a file to keep, catches up.
  addEventListener("beforeunload", () => {
    quiet();
    parts().forEach((part) => htmx.trigger(part, "htmx:abort"));
    setTimeout(listen, 5000);
  });
  addEventListener("pagehide", quiet);
  addEventListener("pageshow", listen);
})();
