// Chinese search: Sphinx names a ChineseStemmer that it does not define, and takes a sentence for one word.
if (document.documentElement.lang.startsWith("zh")) {
  window.ChineseStemmer = function () {
    return new EnglishStemmer(); // as the index was made
  };
  const known = (word) => [Search._index.terms, Search._index.titleterms].some((terms) => Object.hasOwn(terms, word));
  // The longest words of the index, from left to right.
  const words = (text) => {
    const found = [];
    for (let i = 0; i < text.length; i++) {
      let end = Math.min(text.length, i + 8);
      while (end > i && !known(text.slice(i, end))) end--;
      if (end > i) found.push(text.slice(i, end)), (i = end - 1);
    }
    return found.length ? found : [text];
  };
  window.splitQuery = (query) =>
    (query.match(/\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{Letter}\p{Number}_])+/gu) || []).flatMap((part) =>
      /\p{Script=Han}/u.test(part) ? words(part) : [part],
    );
}
