export default {
  initialize({ model }) {
    const answer = () => {
      model.set("drawn", model.get("sent"));
      model.save_changes();
    };
    const wait = () => setTimeout(answer, 50);
    const sent = () => requestAnimationFrame(() => requestAnimationFrame(wait));
    model.on("change:sent", sent);
    sent();
  },
};
