// Follows the relay: asks for the same page again and shows its new middle, unless somebody is typing or looking elsewhere.
async function follow() {
  const typing = document.activeElement && document.activeElement.closest("form");
  if (!document.hidden && !typing) {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
        if (fresh) document.querySelector("main").replaceWith(fresh);
      }
    } catch (gone) {
      // The relay may be starting again; the next look finds it.
    }
  }
  setTimeout(follow, 2000);
}
setTimeout(follow, 2000);
