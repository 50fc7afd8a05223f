// The interactive viewer of a report: which volume is shown and through which window, and how much of a second lies over it.
// `layers` is the JSON beside it: name, title, units, low, high, limit, colours, nifti (base64 of a .nii.gz).
"use strict";
(async () => {
  const layers = JSON.parse(document.getElementById("layers").textContent);
  const element = (id) => document.getElementById(id);
  const said = (text) => { element("viewer-where").textContent = text; };
  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairColor: [0.93, 0.68, 0.29, 0.7], crosshairWidth: 0.5, isColorbar: false,
    dragAndDropEnabled: false, logLevel: "warn", multiplanarShowRender: 0, textHeight: 0.03,
  });
  const number = (value) => value.toPrecision(3).replace("-", "\u2212");
  const made = new Map();
  // one is decoded when it is first asked for, so that the page opens at once
  const image = async (name) => {
    if (!made.has(name)) {
      const layer = layers.find((each) => each.name === name);
      made.set(name, await niivue.NVImage.loadFromBase64({
        base64: layer.nifti, name: `${name}.nii.gz`, colormap: layer.colours, cal_min: layer.low, cal_max: layer.high,
      }));
    }
    return made.get(name);
  };
  const current = () => layers.find((each) => each.name === element("viewer-volume").value);

  const window_ = (redraw = true) => {
    const layer = current();
    const low = Number(element("viewer-low").value), high = Number(element("viewer-high").value);
    layer.low = Math.min(low, high - layer.limit / 1000);
    layer.high = high;
    element("viewer-window").textContent = `${number(layer.low)} to ${number(layer.high)} ${layer.units}`;
    if (redraw && viewer.volumes.length) {
      viewer.volumes[0].cal_min = layer.low;
      viewer.volumes[0].cal_max = layer.high;
      viewer.updateGLVolume();
    }
  };

  const show = async () => {
    const layer = current(), over = element("viewer-over").value, opacity = Number(element("viewer-opacity").value);
    for (const [id, start] of [["viewer-low", layer.low], ["viewer-high", layer.high]]) {
      const slider = element(id);
      slider.min = layer.signed ? -layer.limit : 0;
      slider.max = layer.limit;
      slider.step = layer.limit / 600;
      slider.value = start;
    }
    const below = await image(layer.name), above = over && over !== layer.name ? await image(over) : null;
    for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
    below.opacity = 1;
    below.colormap = layer.colours;
    viewer.addVolume(below);
    if (above) {
      above.opacity = opacity;
      above.colormap = "warm";
      viewer.addVolume(above);
    }
    window_();
  };

  const options = (select, entries) => {
    for (const [value, text] of entries) select.add(new Option(text, value));
  };
  options(element("viewer-volume"), layers.map((layer) => [layer.name, layer.title]));
  options(element("viewer-over"), [["", "nothing"], ...layers.map((layer) => [layer.name, layer.title])]);
  options(element("viewer-planes"), [[3, "three planes"], [0, "axial"], [1, "coronal"], [2, "sagittal"]]);

  viewer.onLocationChange = (where) => {
    const [x, y, z] = where.mm, found = where.values[0];
    const units = current().units;
    said(`(${[x, y, z].map((each) => each.toFixed(1).replace("-", "\u2212")).join(", ")}) mm: ${number(found.value)} ${units}`);
  };
  try {
    await viewer.attachToCanvas(element("viewer-canvas"));
    await show();
    viewer.setSliceType(3);
  } catch (error) {
    said(`The viewer could not start (${error.message}): it needs WebGL 2. The pictures below show the same volumes.`);
    return;
  }
  element("viewer-volume").onchange = show;
  element("viewer-over").onchange = show;
  element("viewer-low").oninput = () => window_();
  element("viewer-high").oninput = () => window_();
  element("viewer-planes").onchange = (event) => viewer.setSliceType(Number(event.target.value));
  element("viewer-opacity").oninput = (event) => {
    if (viewer.volumes.length > 1) viewer.setOpacity(1, Number(event.target.value));
  };
  said("Click or drag in a plane: the value under the cross is written here.");
  document.body.dataset.viewer = "ready";
})();
