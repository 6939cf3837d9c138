(function () {
  "use strict";
  var TYPE = "application/vnd.weighbridge.wake+json";
  var told = document.currentScript.dataset;
  var began = Date.now() - told.elapsed * 1000;
  var state = told.state;
  var expected = Number(told.expected) || 0;
  var progress = told.progress === "" ? null : Number(told.progress);
  var wait = 1000;
  var strange = 0;
  var timer = 0;
  var leaving = false;
  var root = document.documentElement;

  function each(part, change) {
    Array.prototype.forEach.call(document.querySelectorAll('[data-wake="' + part + '"]'), change);
  }

  function say(part, text) {
    each(part, function (element) {
      // A screen reader reads what changes, so nothing is written twice.
      if (element.textContent !== text) element.textContent = text;
    });
  }

  // The same curve as on the server: nine tenths of the way when the expected time is over, and never quite there.
  function share() {
    if (progress !== null) return progress;
    if (!expected) return null;
    var past = (Date.now() - began) / 1000 / expected;
    return past <= 1 ? 0.9 * past : 1 - 0.1 / past;
  }

  function draw() {
    var seconds = Math.max(0, Math.floor((Date.now() - began) / 1000));
    var rest = seconds % 60;
    say("elapsed", Math.floor(seconds / 60) + ":" + (rest < 10 ? "0" : "") + rest);
    var way = share();
    each("progress", function (bar) {
      if (way === null) bar.removeAttribute("value");
      else bar.value = Math.round(way * 1000) / 10;
    });
    var day = state === "starting" ? (way === null ? 0.5 : way) : 0;
    root.style.setProperty("--day", day);
    root.style.setProperty("--tilt", (state === "failed" ? 0 : -13 + 26 * day) + "deg");
  }

  function show(news) {
    if (news.state === "awake") return open();
    strange = 0;
    state = news.state;
    expected = (news.expected_ms || 0) / 1000;
    progress = typeof news.progress === "number" ? news.progress : null;
    began = Date.now() - news.elapsed_ms;
    root.setAttribute("data-state", state);
    document.title = news.title;
    ["heading", "text", "status", "expected"].forEach(function (part) { say(part, news[part]); });
    draw();
  }

  function open() {
    leaving = true;
    location.reload();
  }

  function lost() {
    say("status", told.lost);
  }

  function heard(answer) {
    var type = answer.headers.get("Content-Type") || "";
    if (type.indexOf(TYPE) === 0) return answer.json().then(show);
    // Not the router's: the app itself answers. Unless it is a gateway on the way that has nobody to ask.
    var gateway = answer.status >= 502 && answer.status <= 504;
    if (!gateway || ++strange > 2) return open();
    lost();
  }

  function poll() {
    clearTimeout(timer);
    if (leaving) return;
    var patience = window.AbortController ? new AbortController() : null;
    var giveUp = setTimeout(function () { if (patience) patience.abort(); }, 10000);
    fetch(location.href, {
      headers: { Accept: TYPE },
      cache: "no-store",
      credentials: "same-origin",
      redirect: "manual",
      signal: patience ? patience.signal : undefined
    }).then(heard).catch(lost).then(function () {
      clearTimeout(giveUp);
      wait = Math.min(wait * 1.25, 4000);
      var calm = document.hidden || state === "failed";
      clearTimeout(timer);
      timer = setTimeout(poll, calm ? 10000 : wait);
    });
  }

  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) poll();
  });
  each("again", function (link) {
    link.addEventListener("click", function (event) {
      event.preventDefault();
      open();
    });
  });
  setInterval(draw, 500);
  draw();
  timer = setTimeout(poll, wait);
})();
