// A view's markup in the live page: put in whole, its token strips started, its features made
// into links and buttons. What is chosen in it is told to the server.
const ADDRESS = /^[a-z_]+\.\d+\/\d+[+-]?$/;

export default {
  template: "<div></div>",
  props: { markup: String, steers: Boolean },
  mounted() {
    this.$el.addEventListener("click", this.chosen);
    this.show();
  },
  updated() {
    this.show();
  },
  methods: {
    show() {
      if (this.markup === this.$options.shown?.get(this.$el)) return;
      (this.$options.shown ??= new WeakMap()).set(this.$el, this.markup);
      this.$el.innerHTML = this.markup;
      for (const code of this.$el.querySelectorAll("code.bs-address")) this.lead(code);
      window.brainscanStart();
    },
    lead(code) {
      const address = code.textContent;
      if (!ADDRESS.test(address)) return;
      const card = document.createElement("a");
      card.href = "/feature?id=" + encodeURIComponent(address);
      const stored = code.closest(".bs-latent");
      if (!stored) {
        card.className = "bs-address";
        card.textContent = address;
        code.replaceChildren(card);
        return;
      }
      const row = document.createElement("p");
      row.className = "bp-doing";
      if (this.steers) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "bs-choice";
        button.dataset.steer = address;
        button.textContent = "Turn up or down";
        row.append(button);
      }
      card.textContent = "Its card";
      card.target = "_blank";
      row.append(card);
      stored.querySelector("summary").after(row);
    },
    chosen(event) {
      const steer = event.target.closest("[data-steer]");
      if (steer) this.$emit("steer", { feature: steer.dataset.steer });
      const colour = event.target.closest(".bs-choice[data-i]");
      if (colour) this.$emit("colour", { by: colour.title });
    },
  },
};
