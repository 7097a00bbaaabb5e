"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const ROLES = ["before", "after"];
const chosen = { before: null, after: null }; // files
let limits = { bytes: Infinity, pixels: Infinity };
let asked = null; // the request that is under way

const percent = (p) => (p > 0.999 ? "over 99.9 %" : p < 0.001 ? "under 0.1 %" : `${(100 * p).toFixed(1)} %`);
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toPrecision(3).replace(/\.?0+$/, "")} MiB`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fail(message) {
  $("#status").textContent = "";
  $("#fault").textContent = message;
}

function choose(role, file) {
  if (file.size > limits.bytes) {
    fail(`${file.name} is too large: a file may have ${mebibytes(limits.bytes)}.`);
    return;
  }
  fail("");
  chosen[role] = file;
  draw(role);
}

function draw(role) {
  const drop = $(`.drop[data-role=${role}]`), picture = $("img", drop), file = chosen[role];
  if (picture.src) URL.revokeObjectURL(picture.src);
  drop.classList.toggle("chosen", Boolean(file));
  $(".name", drop).textContent = file ? file.name : "Choose an image or drop it here";
  picture.hidden = true;
  picture.removeAttribute("src");
  if (!file) return;
  picture.onload = () => (picture.hidden = false); // of TIFF a browser may draw nothing
  picture.src = URL.createObjectURL(file);
}

async function ask(address, body, doing) {
  asked?.abort();
  const own = (asked = new AbortController());
  $("#fault").textContent = "";
  $("#status").textContent = doing;
  $("#result").classList.add("old");
  $("#result").setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { method: "POST", body, signal: own.signal });
    const json = (answer.headers.get("Content-Type") || "").startsWith("application/json");
    if (!json) throw new Error("The server failed; its terminal says why.");
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    if (own === asked) show(found);
  } catch (error) {
    if (own !== asked) return; // another request took its place
    fail(error instanceof TypeError ? "The server cannot be reached: is it still running?" : error.message);
  } finally {
    if (own === asked) {
      $("#result").classList.remove("old");
      $("#result").removeAttribute("aria-busy");
    }
  }
}

function show(found) {
  $("#status").textContent = "";
  $("#sentence").textContent = found.sentence || "(no words)";
  $("#changed").textContent = percent(found.changed_probability);
  $("#changed-bar").style.width = `${100 * found.changed_probability}%`;
  $("#familiarity").textContent = found.familiarity;
  $("#result").classList.toggle("unlike", found.familiar === false);
  $("#familiar-scale").hidden = found.unfamiliarity === null;
  if (found.unfamiliarity !== null) {
    $("#unfamiliarity").textContent = found.unfamiliarity.toFixed(2);
    $("#familiar-bar").style.width = `${Math.min(100, 50 * found.unfamiliarity)}%`;
  }
  $("#alternatives").replaceChildren(
    ...found.alternatives.map((one) =>
      element("li", {}, element("span", { textContent: one.text }), element("span", { textContent: percent(one.probability) })),
    ),
  );
  const { width, height } = found.images.before;
  $(".frame").style.aspectRatio = `${width} / ${height}`;
  for (const role of ROLES) {
    const side = $(`.side.${role}`), { image, map } = found.images[role];
    $(".image", side).src = image;
    $(".map", side).hidden = !map;
    if (map) $(".map", side).src = map;
  }
  const changed = found.changed_probability >= 0.5; // else a map means little
  divide(changed ? found.line : 50);
  showMaps(changed);
  $("#result").hidden = false;
  $("#sentence").focus({ preventScroll: true }); // a screen reader says it
  $("#result").scrollIntoView({ block: "nearest" });
}

function divide(at) {
  const slider = $("#divide");
  slider.value = at;
  slider.setAttribute("aria-valuetext", `${at} % before, ${100 - at} % after`);
  $(".frame").style.setProperty("--at", `${at}%`);
  $(".tag.left").hidden = at < 15;
  $(".tag.right").hidden = at > 85;
}

function showMaps(yes) {
  $("#map").checked = yes;
  $(".frame").classList.toggle("plain", !yes);
}

function press(button) {
  for (const each of document.querySelectorAll("#examples button")) {
    each.setAttribute("aria-pressed", String(each === button));
  }
}

$("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  const missing = ROLES.find((role) => !chosen[role]);
  if (missing) {
    fail(`Choose the image ${missing} first.`);
    $(`#${missing}`).focus();
    return;
  }
  const form = new FormData();
  for (const role of ROLES) form.append(role, chosen[role], role); // the file's own name stays here
  press(null);
  ask("/caption", form, "Looking at both images…");
});

for (const role of ROLES) {
  const drop = $(`.drop[data-role=${role}]`), input = $(`#${role}`);
  input.addEventListener("change", () => {
    if (input.files[0]) choose(role, input.files[0]);
    input.value = ""; // the same file may be chosen again
  });
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length === 2) ROLES.forEach((each, number) => choose(each, files[number]));
    else if (files.length === 1) choose(role, files[0]);
    else fail("Drop one image, or two at once: before, then after.");
  });
}
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault()); // not opened

$("#swap").addEventListener("click", () => {
  [chosen.before, chosen.after] = [chosen.after, chosen.before];
  ROLES.forEach(draw);
});
$("#divide").addEventListener("input", (event) => divide(Number(event.target.value)));
$("#map").addEventListener("change", (event) => showMaps(event.target.checked));

fetch("/about").then((answer) => answer.json()).then((about) => {
  limits = about.limits;
  $("#model").textContent = `Model: ${about.model}.`;
  $("#limits").textContent =
    `JPEG, PNG, WebP, GIF, BMP or TIFF; up to ${mebibytes(limits.bytes)} and ${Math.floor(limits.pixels / 2 ** 20)} megapixels each.`;
  about.examples.forEach((example, number) => {
    const button = element("button", { type: "button", title: example.name },
      ...example.thumbnails.map((src) => element("img", { src, alt: "" })), element("span", { textContent: example.name }));
    button.setAttribute("aria-label", `Example ${number + 1}: ${example.name}`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      press(button);
      ask(`/examples/${number}`, null, "Looking at the example…");
    });
    $("#examples ul").append(element("li", {}, button));
  });
  $("#examples").hidden = !about.examples.length;
}).catch(() => fail("The server cannot be reached: is it still running?"));
