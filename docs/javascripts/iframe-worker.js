// A page opened as a file may start no worker, and the search is one. Here its script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inner = frame.contentWindow, script = frame.contentDocument.createElement("script")
      // what the script sends goes out by this object, what is sent before it has loaded waits for it
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = new Promise(resolve => { script.onload = () => resolve(inner) })
      script.src = url
      frame.contentDocument.body.append(script)
    }

    async postMessage(data) {
      const inner = await this.ready
      inner.dispatchEvent(new inner.MessageEvent("message", { data }))
    }

    terminate() {}
  }
}
