// ---- The form: made from the schema, read back as a plain object. ----

const byId = (id) => document.getElementById(id);

function element(kind, properties, ...inside) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...inside);
  return made;
}

// Keys in the order of the description, then whatever else there is.
function ordered(path, properties) {
  const place = (name) => {
    const at = ORDER.findIndex((key) => {
      const plain = key.replaceAll("[]", "");
      return plain === path + name || plain.startsWith(path + name + ".");
    });
    return at < 0 ? ORDER.length : at;
  };
  return Object.keys(properties).sort((a, b) => place(a) - place(b));
}

// What the page's disk cannot carry, and how it comes onto a disk.
const BESIDE = {
  license: "This page's disk does not carry the licence itself: put the file into the folder license of the disk, beside site.toml, or make the disk with `consign config disk --license`.",
  secret: "This page's disk does not carry secrets.age: put the file beside site.toml on the disk, or make the disk with `consign config disk --secrets`. A secret that is typed at the console needs no file.",
};

function helpOf(schema, path) {
  const section = path.split(".")[0];
  const beside = path === section + "." && Object.hasOwn(BESIDE, section) ? BESIDE[section] : "";
  return element("small", { textContent: [schema.description, beside].filter(Boolean).join(" ") });
}

// Each field has `read()`, which gives its value or undefined, and `mark(path)`;
// those with others inside have `doubled(path)`, the names that stand twice.
function field(schema, name, path, required) {
  if (schema.const !== undefined) return constant(schema);
  if (schema.type === "object" && schema.propertyNames) return named(schema, name, path);
  if (schema.type === "object") return group(schema, name, path, required);
  if (schema.type === "array" && schema.items.type === "object") return list(schema, name, path);
  return single(schema, name, required);
}

function constant(schema) {
  return { dom: element("span", { hidden: true }), read: () => schema.const, mark: () => {} };
}

// Whose table may be left out may leave out its fields too: only `needed` ones get a star.
function group(schema, name, path, needed) {
  const parts = {};
  const dom = element("fieldset", {}, element("legend", { textContent: name }));
  dom.append(helpOf(schema, path));
  for (const key of ordered(path, schema.properties || {})) {
    const required = needed && (schema.required || []).includes(key);
    parts[key] = field(schema.properties[key], key, path + key + ".", required);
    dom.append(parts[key].dom);
  }
  return { dom, parts, read: () => readParts(parts), mark: (rest) => markPart(parts, rest), doubled: (at) => doubledIn(parts, at) };
}

function doubledIn(parts, at) {
  return Object.entries(parts).flatMap(([key, part]) => (part.doubled ? part.doubled([...at, key]) : []));
}

function readParts(parts) {
  const value = Object.create(null);
  for (const [key, part] of Object.entries(parts)) {
    const found = part.read();
    if (found !== undefined) value[key] = found;
  }
  return Object.keys(value).length ? value : undefined;
}

function markPart(parts, [first, ...rest]) {
  if (parts[first]) parts[first].mark(rest);
}

function list(schema, name, path) {
  const items = [];
  const holder = element("div");
  const add = () => {
    const item = group(schema.items, name, path, true);
    const gone = element("button", { type: "button", textContent: "Remove" });
    gone.onclick = () => { items.splice(items.indexOf(item), 1); item.dom.remove(); refresh(); };
    item.dom.append(gone);
    items.push(item);
    holder.append(item.dom);
    return item;
  };
  const more = element("button", { type: "button", textContent: "Add " + name });
  more.onclick = () => { add(); refresh(); };
  const read = () => {
    const values = items.map((item) => item.read() || {});
    return values.length ? values : undefined;
  };
  const mark = ([at, ...rest]) => items[at] && items[at].mark(rest);
  const help = element("small", { textContent: schema.description || "" });
  return { dom: element("div", {}, holder, more, help), read, mark, add, items };
}

function named(schema, name, path) {
  const items = [];
  const holder = element("div");
  const add = (chosen) => {
    const item = group(schema.additionalProperties, name, path + "*.", true);
    item.name = element("input", { type: "text", value: chosen || "" });
    item.name.oninput = refresh;
    const gone = element("button", { type: "button", textContent: "Remove" });
    gone.onclick = () => { items.splice(items.indexOf(item), 1); item.dom.remove(); refresh(); };
    item.dom.querySelector("legend").after(element("label", {}, "Name *", item.name));
    item.dom.append(gone);
    items.push(item);
    holder.append(item.dom);
    return item;
  };
  const more = element("button", { type: "button", textContent: "Add " + name });
  more.onclick = () => { add(); refresh(); };
  const read = () => {
    // An ordinary object would take the name `__proto__` for its own.
    const value = Object.create(null);
    for (const item of items) value[nameOf(item)] = item.read() || {};
    return items.length ? value : undefined;
  };
  const mark = ([key, ...rest]) => {
    for (const item of items.filter((item) => nameOf(item) === key)) {
      if (rest.length) item.mark(rest);
      else item.name.classList.add("wrong");
    }
  };
  const doubled = (at) => {
    const names = items.map(nameOf);
    const twice = new Set(names.filter((name, index) => names.indexOf(name) !== index));
    return [...twice].map((name) => ({ path: [...at, name], message: "stands here twice: each needs a name of its own" }));
  };
  return { dom: element("div", {}, holder, more, helpOf(schema, path)), read, mark, doubled, add, items };
}

const nameOf = (item) => item.name.value.trim();

function single(schema, name, required) {
  const input = inputFor(schema);
  input.oninput = refresh;
  const example = (schema.examples || [])[0];
  const help = [schema.description, example && !example.includes("\n") && "Example: " + example];
  const text = element("small", { textContent: help.filter(Boolean).join(" ") });
  const dom = element("label", {}, name + (required ? " *" : ""), text, input);
  return { dom, input, read: () => readInput(schema, input.value), mark: () => input.classList.add("wrong") };
}

function inputFor(schema) {
  if (schema.enum) return choice(["", ...schema.enum]);
  if (schema.type === "boolean") return choice(["", "true", "false"]);
  if (takes(schema, "array")) return element("textarea", { rows: 2, placeholder: "one in each line" });
  if (schema.contentMediaType) return element("textarea", { rows: 6 });
  const input = element("input", { type: "text" });
  if (schema.type === "integer") input.inputMode = "numeric";
  if (schema.default !== undefined) input.placeholder = String(schema.default);
  return input;
}

function choice(values) {
  return element("select", {}, ...values.map((value) => element("option", { value, textContent: value })));
}

function readInput(schema, raw) {
  const text = raw.trim();
  if (text === "") return undefined;
  if (schema.type === "boolean") return text === "true";
  if (takes(schema, "integer")) return /^-?[0-9]+$/.test(text) ? Number(text) : text;
  if (takes(schema, "array")) return text.split(/\n/).map((line) => line.trim()).filter(Boolean);
  return schema.contentMediaType ? text + "\n" : text;
}

// ---- The judgement: as much of JSON Schema as our schemas use. ----

const KINDS = { object: "a table", array: "a list", string: "a text", boolean: "true or false", integer: "a whole number" };

function kindOf(value) {
  if (Array.isArray(value)) return "array";
  return Number.isSafeInteger(value) ? "integer" : typeof value;
}

const takes = (schema, kind) => [schema.type || []].flat().includes(kind);

function fits(schema, value) {
  const problems = [];
  validate(schema, value, [], problems);
  return problems.length === 0;
}

function validate(schema, value, path, problems) {
  const say = (message, at = path) => problems.push({ path: at, message });
  const kind = kindOf(value);
  if (schema.type && !takes(schema, kind)) return say("must be " + [schema.type].flat().map((kind) => KINDS[kind]).join(" or "));
  if (schema.const !== undefined && value !== schema.const) say("must be " + schema.const);
  if (schema.enum && !schema.enum.includes(value)) return say("must be one of " + schema.enum.join(", "));
  if (kind === "object") validateObject(schema, value, path, problems, say);
  if (kind === "array") {
    if (value.length < schema.minItems) say("must have an entry");
    if (value.length > schema.maxItems) say("must have at most " + schema.maxItems + " entries");
    if (schema.items) value.forEach((item, at) => validate(schema.items, item, [...path, String(at)], problems));
  }
  if (kind === "integer") {
    if (value < schema.minimum) say("must be " + schema.minimum + " or more");
    if (value > schema.maximum) say("must be " + schema.maximum + " or less");
  }
  if (kind === "string") {
    if (schema.pattern && !new RegExp(schema.pattern, "u").test(value)) say("has another form");
    if ([...value].length > schema.maxLength) say("must have at most " + schema.maxLength + " characters");
  }
  if (schema.not && fits(schema.not, value)) say("cannot be this");
  if (schema.anyOf && !schema.anyOf.some((part) => fits(part, value))) {
    say("needs one of " + schema.anyOf.flatMap((part) => part.required || []).join(", "));
  }
  for (const part of schema.allOf || []) {
    if (fits(part.if, value)) validate(part.then, value, path, problems);
  }
}

function validateObject(schema, value, path, problems, say) {
  const keys = Object.keys(value);
  const properties = schema.properties || {};
  for (const key of schema.required || []) {
    if (!Object.hasOwn(value, key)) say("must be filled in", [...path, key]);
  }
  if (keys.length < schema.minProperties) say("needs one of its fields");
  if (keys.length > schema.maxProperties) say("takes only one of its fields");
  for (const key of keys) {
    if (schema.propertyNames && !fits(schema.propertyNames, key)) say("is not a name for this", [...path, key]);
    if (Object.hasOwn(properties, key)) validate(properties[key], value[key], [...path, key], problems);
    else if (schema.additionalProperties === false) say("does not exist", [...path, key]);
    else if (schema.additionalProperties) validate(schema.additionalProperties, value[key], [...path, key], problems);
  }
}

function judge(site) {
  const problems = [];
  validate(SCHEMA, site, [], problems);
  return problems;
}

// ---- The text: TOML, in the order of the form. ----

const bare = (key) => (/^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key));
// TOML has JSON's escapes, but for the one of DEL, which JSON leaves as it is.
const quote = (text) => JSON.stringify(text).replaceAll("\x7f", "\\u007f");

function toml(value, schema) {
  if (Array.isArray(value)) return "[" + value.map((item) => toml(item, schema.items || {})).join(", ") + "]";
  if (typeof value === "object") {
    const inside = Object.entries(value).map(([key, item]) => bare(key) + " = " + toml(item, (schema.properties || {})[key] || {}));
    return "{ " + inside.join(", ") + " }";
  }
  if (typeof value === "string") return schema.pattern === DATE ? value : quote(value);
  return String(value);
}

function tomlTable(head, value, schema) {
  const lines = Object.entries(value).map(([key, item]) => bare(key) + " = " + toml(item, (schema.properties || {})[key] || {}));
  return [head, ...lines, ""].join("\n");
}

function document_(site) {
  const parts = ["# Made with the page of " + NAME.replace(/[^ -~]/g, "?") + ".", "schema = " + site.schema, ""];
  for (const [key, value] of Object.entries(site)) {
    const schema = SCHEMA.properties[key] || {};
    if (key === "schema") continue;
    if (Array.isArray(value)) value.forEach((item) => parts.push(tomlTable("[[" + key + "]]", item, schema.items)));
    else if (schema.propertyNames) {
      for (const [name, item] of Object.entries(value)) parts.push(tomlTable("[" + key + "." + bare(name) + "]", item, schema.additionalProperties));
    } else parts.push(tomlTable("[" + key + "]", value, schema));
  }
  return parts.join("\n");
}

// ---- The disk: FAT12 of 1.44 MB (Microsoft, FAT 1.03), label VACONFIG. ----

const SECTOR = 512, SECTORS = 2880, TABLE = 9, ROOT_SLOTS = 224;
const ROOT = (1 + 2 * TABLE) * SECTOR, DATA = ROOT + ROOT_SLOTS * 32;

function ascii(bytes, at, text) {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
}

function fatImage(files) {
  const image = new Uint8Array(SECTORS * SECTOR);
  const view = new DataView(image.buffer);
  let id = 0x811c9dc5;
  for (const file of files) for (const byte of file.bytes) id = Math.imul(id ^ byte, 0x01000193) >>> 0;
  image.set([0xeb, 0x3c, 0x90]);
  ascii(image, 3, "CONSIGN ");
  for (const [at, value] of [[11, SECTOR], [14, 1], [17, ROOT_SLOTS], [19, SECTORS], [22, TABLE], [24, 18], [26, 2], [510, 0xaa55]]) view.setUint16(at, value, true);
  image[13] = 1;
  image[16] = 2;
  image[21] = 0xf0;
  image[38] = 0x29;
  view.setUint32(39, id, true);
  ascii(image, 43, "VACONFIG   FAT12   ");
  const next = [0xff0, 0xfff];
  let slot = ROOT;
  ascii(image, slot, "VACONFIG   ");
  image[slot + 11] = 0x08;
  view.setUint16(slot + 24, 0x21, true);
  slot += 32;
  for (const file of files) {
    const first = next.length;
    const count = Math.ceil(file.bytes.length / SECTOR);
    if (DATA + (first - 2 + count) * SECTOR > image.length) throw new Error("the configuration is too large for the disk");
    for (let at = 1; at <= count; at++) next.push(at === count ? 0xfff : first + at);
    image.set(file.bytes, DATA + (first - 2) * SECTOR);
    slot = longName(image, view, slot, file);
    ascii(image, slot, file.short);
    image[slot + 11] = 0x20;
    view.setUint16(slot + 16, 0x21, true);
    view.setUint16(slot + 18, 0x21, true);
    view.setUint16(slot + 24, 0x21, true);
    view.setUint16(slot + 26, count ? first : 0, true);
    view.setUint32(slot + 28, file.bytes.length, true);
    slot += 32;
  }
  for (const table of [SECTOR, (1 + TABLE) * SECTOR]) {
    next.forEach((value, cluster) => {
      const at = table + cluster + (cluster >> 1);
      const old = view.getUint16(at, true);
      view.setUint16(at, cluster & 1 ? (old & 0x00f) | (value << 4) : (old & 0xf000) | value, true);
    });
  }
  return image;
}

function longName(image, view, slot, file) {
  let sum = 0;
  for (const c of file.short) sum = ((sum >> 1) | ((sum & 1) << 7)) + c.charCodeAt(0) & 0xff;
  const units = [...file.name].map((c) => c.charCodeAt(0));
  const count = Math.ceil(units.length / 13);
  if (units.length % 13) units.push(0);
  while (units.length % 13) units.push(0xffff);
  const places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
  for (let part = count; part >= 1; part--, slot += 32) {
    image[slot] = part | (part === count ? 0x40 : 0);
    image[slot + 11] = 0x0f;
    image[slot + 13] = sum;
    places.forEach((at, i) => view.setUint16(slot + at, units[(part - 1) * 13 + i], true));
  }
  return slot;
}

function configDisk(text) {
  const blank = (size) => new Uint8Array(size).fill(0x0a);
  // The appliance writes into the last three without changing the file system.
  return fatImage([
    { name: "site.toml", short: "SITE~1  TOM", bytes: new TextEncoder().encode(text) },
    { name: "report.json", short: "REPORT~1JSO", bytes: blank(65536) },
    { name: "request.toml", short: "REQUES~1TOM", bytes: blank(16384) },
    { name: "support.tar", short: "SUPPORT TAR", bytes: new Uint8Array(1 << 19) },
  ]);
}

// ---- The page. ----

let form;

function roleForm() {
  // With several roles, [app] is that of the chosen one.
  const chosen = form.parts.role && (form.parts.role.read() || {}).name;
  const found = (SCHEMA.allOf || []).find((part) => part.if.properties.role.properties.name.const === chosen);
  if (!SCHEMA.allOf || form.chosen === chosen) return;
  form.chosen = chosen;
  const app = found ? group(found.then.properties.app, "app", "app.", (found.then.required || []).includes("app")) : { dom: element("span"), read: () => undefined, mark: () => {} };
  form.parts.app.dom.replaceWith(app.dom);
  form.parts.app = app;
}

function site() {
  return form.read() || {};
}

function refresh() {
  roleForm();
  for (const wrong of document.querySelectorAll(".wrong")) wrong.classList.remove("wrong");
  byId("problems").replaceChildren();
  byId("preview").textContent = document_(site());
}

function accepted() {
  refresh();
  const problems = [...judge(site()), ...form.doubled([])];
  byId("problems").replaceChildren(...problems.slice(0, 50).map((problem) => element("p", { textContent: problem.path.join(".") + " " + problem.message })));
  for (const problem of problems) form.mark(problem.path);
  return problems.length === 0;
}

function download(bytes, name) {
  const address = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

function start() {
  document.title = NAME + ": site configuration";
  byId("title").textContent = document.title;
  form = group(SCHEMA, "Site", "", true);
  byId("form").append(form.dom);
  byId("disk").onclick = () => accepted() && download(configDisk(document_(site())), "site.img");
  byId("text").onclick = () => accepted() && download(new TextEncoder().encode(document_(site())), "site.toml");
  refresh();
}

start();
