export default {
  render({ model, el }) {
    const audio = document.createElement("audio");
    const load = () => {
      URL.revokeObjectURL(audio.src);
      const flac = model.get("clip").flac;
      if (flac) audio.src = URL.createObjectURL(new Blob([flac], { type: "audio/flac" }));
    };
    const changed = () => {
      load();
      if (model.get("clip").count) audio.play().catch(() => {});
    };
    audio.controls = true;
    audio.style.width = "100%";
    load();
    model.on("change:clip", changed);
    el.append(audio);
    return () => {
      audio.pause();
      model.off("change:clip", changed);
    };
  },
};
