// Gradio takes files alone, without the folders that they lie in. So folders are walked here, and
// each file is handed to Gradio under its name below them, "cats/tabby.jpg".
(() => {
  const named = (file, name) => new File([file], name, { type: file.type });

  const entriesOf = async (folder) => {
    const reader = folder.createReader();
    const all = [];
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return all;
      all.push(...some);
    }
  };

  const filesOf = async (entry, above) => {
    const name = above + entry.name;
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      return [named(file, name)];
    }
    const files = [];
    for (const inner of await entriesOf(entry)) files.push(...(await filesOf(inner, name + "/")));
    return files;
  };

  const hand = (zone, files) => {
    const input = zone.querySelector("input[type=file]");
    const all = new DataTransfer();
    for (const file of files) all.items.add(file);
    input.files = all.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // A zone that holds files already takes more of them, and no other place takes any: the browser
  // would leave the page to show them.
  document.addEventListener(
    "dragover",
    (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.stopPropagation();
      event.dataTransfer.dropEffect = event.target.closest?.(".drop") ? "copy" : "none";
    },
    true,
  );

  document.addEventListener(
    "drop",
    async (event) => {
      const zone = event.target.closest?.(".drop");
      const all = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
      if (!zone || !all.length) return;
      const items = all.map((item) => [item.webkitGetAsEntry(), item.getAsFile()]);
      event.preventDefault();
      event.stopPropagation();
      const files = [];
      for (const [entry, file] of items)
        files.push(...(entry?.isDirectory ? await filesOf(entry, "") : [file]));
      hand(zone, files);
    },
    true,
  );

  window.chooseFolder = (zone) => {
    const input = document.createElement("input");
    input.type = "file";
    input.webkitdirectory = true;
    input.addEventListener("change", () => {
      const files = [...input.files].map((file) => named(file, file.webkitRelativePath));
      hand(document.getElementById(zone), files);
    });
    input.click();
  };
})();
