// Goes on with a deletion by pattern: asks for one step after another, and shows what the server answers.
// Without this script the button "Go on" does the same.
(function () {
    "use strict";

    let asking = false;
    let stopped = false;

    async function goOn() {
        let progress = document.getElementById("progress");
        while (!stopped && progress && progress.hasAttribute("data-goes-on")) {
            const form = document.getElementById("step");
            const data = new FormData(form);
            data.set("act", "step");
            asking = true;
            const answer = await fetch(form.action, { method: "POST", body: data, credentials: "same-origin" });
            const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("progress");
            asking = false;
            if (!answer.ok || !next) {
                window.location.reload(); // refused, logged out, or something else: the page itself says what
                return;
            }
            history.replaceState(null, "", answer.url);
            progress.replaceWith(document.adoptNode(next));
            progress = next;
        }
        const stop = document.querySelector("#step button[value=stop]");
        if (stopped && stop) {
            stop.click(); // with what the last step has deleted
        }
    }

    document.addEventListener("submit", function (event) {
        if (event.target.id === "step" && asking) {
            event.preventDefault();
            stopped = event.submitter.value === "stop";
        }
    });
    document.addEventListener("DOMContentLoaded", function () {
        goOn().catch(function () {
            asking = false; // the site does not answer: the buttons are there
        });
    });
})();
