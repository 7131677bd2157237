//! What `gpuquota why` answers.

use super::message::{Message, message};

macro_rules! answers {
    ($($name:ident = $code:literal, $title:literal, $means:literal, $next:literal;)+) => {
        $(pub static $name: Message = message($code, $title, $means, $next);)+

        /// All of them.
        pub(super) static ALL: &[&Message] = &[$(&$name),+];
    };
}

answers! {
    ABOVE_THE_CAP = "GQ301", "refused by its own cap",
        "The last refused request alone is larger than the container's memory limit, or than what its own process left of it.",
        "Raise the limit with `gpuquota limit CONTAINER --memory SIZE`, or let the program ask for less.";
    HELD_BY_OTHERS = "GQ302", "refused because of others of its container",
        "Other processes of the same container held most of the memory that the limit allows.",
        "End the process that is named, or let it give memory back, or raise the limit.";
    CONTEXTS = "GQ303", "refused because of contexts",
        "Contexts of the driver take so much of the limit that the request did not fit, or the request was a context itself: each process that uses the card has one, of some hundred MiB.",
        "Run fewer processes in the container, or raise the limit by what a context takes.";
    CARD_FULL = "GQ304", "the card is full",
        "The card itself has hardly any memory left, although the container is below its limit: the driver refuses, and not the quota.",
        "Look with `gpuquota top` or `gpuquota ps` who holds the card's memory; the limits of its containers together may be more than the card has.";
    REFUSED_BEFORE = "GQ305", "refused before",
        "Requests were refused, and the event that says why is not kept any more.",
        "Ask again after the next refusal; `gpuquota events --follow` shows it as it comes.";
    SHARE = "GQ311", "slow because of its share",
        "Launches of the container waited, because it had used its share of GPU time.",
        "Raise the share with `gpuquota limit CONTAINER --cores PERCENT`, or set the policy burst-share, which lends idle time.";
    NEIGHBOURS = "GQ312", "slow because neighbours have the card",
        "Launches of the container waited, because other containers had the card.",
        "Nothing, if the shares are as meant. Otherwise lower theirs, raise its guaranteed share (`--cores-request`), or move one of them.";
    IN_FLIGHT = "GQ313", "slow because of its own work",
        "Launches of the container waited for work of their own process, which the card had not finished.",
        "Nothing: the program fills its share. A larger share (`--cores`) lets it launch further ahead.";
    ON_THE_HOST = "GQ314", "slow because memory lies on the host",
        "A part of the container's memory lies on the host, because its limit of bytes on the device was reached; the card reaches it slowly.",
        "Raise the limit of bytes on the device, or let the program hold less.";
    THROTTLED = "GQ315", "the card holds its clocks back",
        "The card has lowered its clocks because of heat or power, for all who use it.",
        "Look at its cooling and its power limit.";
    OUTSIDERS = "GQ316", "others have the card who have no quota",
        "Processes without a quota are at the card. What they use of it no share limits.",
        "`gpuquota ps` names them. Give them a quota, or move them.";
    NO_LIMITS = "GQ321", "not limited at all",
        "The container has a region and no limit on any device: nothing is refused, and nothing waits.",
        "Set one with `gpuquota limit CONTAINER --memory SIZE --cores PERCENT`.";
    UNPROTECTED = "GQ322", "a process is not held",
        "A process of the container uses the card without the library, so that no limit holds it and its memory is not counted.",
        "Run `gpuquota doctor -- COMMAND` in the container: it tells what keeps the library out.";
    NOBODY = "GQ323", "no process is counted",
        "No living process of the container has met a card through the library: either none has used one yet, or the library is not loaded.",
        "Run `gpuquota doctor -- COMMAND` in the container.";
    LOST = "GQ324", "the card is lost",
        "A card that the container uses does not answer any more.",
        "Reset the card or restart the node, then start the programs again.";
    ENDED = "GQ325", "the container has ended",
        "The container's region is gone; its last figures are shown.",
        "Nothing.";
    OBSERVED = "GQ326", "observed only",
        "The container is in observe mode: what its limits would refuse or delay is counted, and nothing is refused or delayed.",
        "Set GPUQUOTA_MODE=enforce, once the counts are as wanted.";
    NOTHING = "GQ330", "nothing stands in its way",
        "No request of the container was refused, and hardly any launch waited.",
        "Look into the program itself.";
}
