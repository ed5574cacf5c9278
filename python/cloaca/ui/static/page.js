// The page works without this: it shows times in the reader's zone, keeps what is shown fresh, and heeds a few keys.
"use strict";
(() => {
  const html = document.documentElement;
  const main = document.getElementById("main");
  const sign = document.getElementById("live");
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });

  // How long something took, or has to go, in its largest unit or two.
  function span(seconds) {
    const size = Math.max(0, seconds);
    for (let place = 0; place < UNITS.length; place++) {
      const [unit, name] = UNITS[place];
      if (size < unit) continue;
      const smaller = UNITS[place + 1];
      const rest = smaller && size < unit * 10 ? Math.floor((size % unit) / smaller[0]) : 0;
      return `${Math.floor(size / unit)} ${name}${rest ? ` ${rest} ${smaller[1]}` : ""}`;
    }
    return "0 s";
  }

  // Writes the times within an element as the reader's clock shows them.
  function localise(within) {
    const now = Date.now();
    for (const time of within.querySelectorAll("time[datetime]")) {
      const at = Date.parse(time.getAttribute("datetime"));
      if (Number.isNaN(at)) continue;
      const seconds = (now - at) / 1000;
      const kind = time.dataset.as;
      let text;
      if (kind === "ago") text = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
      else if (kind === "since") text = span(seconds);
      else {
        const when = new Date(at);
        const isToday = when.toDateString() === new Date(now).toDateString();
        text = isToday ? clock.format(when) : `${day.format(when)}, ${clock.format(when)}`;
      }
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // What a row or a button is about: it must not become that of another thing under somebody's hand.
  function about(element) {
    if (element.nodeName === "BUTTON") return element.value;
    if (element.nodeName !== "TR") return "";
    const link = element.dataset.key === undefined && element.querySelector("a[href]");
    return link ? link.getAttribute("href") : element.dataset.key || "";
  }
  // Whether one may become the other: of the same kind, by its id or the first of its classes, and about the same.
  function alike(old, fresh) {
    if (old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) return false;
    if (old.nodeType !== Node.ELEMENT_NODE) return true;
    return old.classList[0] === fresh.classList[0] && about(old) === about(fresh);
  }

  // Makes an element like another one and keeps what has not changed, so that focus, scroll and what is open stay.
  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const isTyped = old === document.activeElement && "value" in old;
    for (const { name } of [...old.attributes]) {
      const isOurs = name === "aria-disabled" || (old.nodeName === "DETAILS" && name === "open");
      if (!fresh.hasAttribute(name) && !isOurs) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.nodeName === "DETAILS" && name === "open") continue;
      if (old.getAttribute(name) !== value && !(isTyped && name === "value")) old.setAttribute(name, value);
    }
    if (old.nodeName !== "SELECT" && !isTyped) morphChildren(old, fresh);
  }
  function morphChildren(old, fresh) {
    let at = old.firstChild;
    const coming = [...fresh.childNodes];
    coming.forEach((child, place) => {
      // What is gone makes room, unless it only comes later; text has nothing to keep.
      const isGone = () => at.nodeType !== Node.ELEMENT_NODE || !coming.slice(place).some((later) => alike(at, later));
      while (at && !alike(at, child) && isGone()) {
        const next = at.nextSibling;
        at.remove();
        at = next;
      }
      if (at && alike(at, child)) {
        const next = at.nextSibling;
        morph(at, child);
        at = next;
      } else {
        old.insertBefore(child, at);
      }
    });
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  // A button that has just come may stand where somebody was about to press another one: it does nothing yet.
  const SETTLES_MS = 1000;
  function buttons() {
    return [...main.querySelectorAll("button[form=act]")];
  }
  document.addEventListener("click", (event) => {
    if (event.target.closest("button[aria-disabled]")) event.preventDefault();
  }, true);
  function settle(button) {
    button.setAttribute("aria-disabled", "true");
    setTimeout(() => button.removeAttribute("aria-disabled"), SETTLES_MS);
  }
  function renew(shell) {
    const known = new Set(buttons());
    const hadFocus = main.contains(document.activeElement);
    morph(main, shell);
    buttons().filter((button) => !known.has(button)).forEach(settle);
    // What had the focus is gone: the keys go on from here, and not from the top of the page.
    if (hadFocus && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
  }

  let source = null;
  function say(text, isOn) {
    sign.hidden = false;
    sign.textContent = text;
    sign.classList.toggle("on", isOn);
  }
  function listen() {
    if (source || !html.dataset.mark || document.hidden) return;
    const query = new URLSearchParams({ view: html.dataset.view, have: html.dataset.mark });
    source = new EventSource(`${html.dataset.root}/live?${query}`);
    source.onopen = () => say("live", true);
    source.onerror = () => say("not live", false);
    source.addEventListener("main", (event) => {
      const fresh = document.createElement("template");
      fresh.innerHTML = event.data;
      html.dataset.mark = event.lastEventId;
      localise(fresh.content);
      const shell = main.cloneNode(false);
      shell.append(fresh.content);
      renew(shell);
    });
  }
  function leave() {
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      leave();
      say("paused", false);
    } else {
      localise(main);
      listen();
    }
  });
  // A page that the browser keeps for "back" must not keep its stream.
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", listen);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector(".find input").focus();
    } else if (event.key === "j" || event.key === "k") {
      const links = [...main.querySelectorAll("table.rows tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
      const row = document.activeElement.closest("tr");
      const place = links.findIndex((link) => row && row.contains(link));
      const next = links[event.key === "j" ? place + 1 : Math.max(0, place - 1)];
      if (next) next.focus();
    }
  });

  localise(document);
  setInterval(() => document.hidden || localise(main), 1000);
  listen();
})();
