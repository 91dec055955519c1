// Goes on with a deletion by pattern: asks for one step after another, and shows what the server answers.
// Without this script the button "Go on" does the same.
(function () {
    "use strict";

    let asking = false;
    let stopped = false;
    let asked = 0;

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
            asked += 1;
            if (!answer.ok || !next) {
                window.location.reload(); // refused, logged out, or something else: the page itself says what
                return;
            }
            history.replaceState(null, "", answer.url);
            progress.replaceWith(document.adoptNode(next));
            progress = next;
        }
        if (stopped) {
            press("stop"); // with what the last step has deleted
        }
    }

    function press(act) {
        const button = document.querySelector("#step button[value=" + act + "]");
        if (button) {
            button.click();
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
            asking = false;
            if (asked === 0 && !stopped) {
                press("step"); // the site's policy may forbid fetch(): then the page itself goes on
            }
        });
    });
})();
