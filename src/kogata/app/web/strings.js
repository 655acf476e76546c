// Every sentence of the page, in English and Japanese, and how numbers, sizes, times and dates are written in each.

const one = (n, singular, plural) => `${number(n)} ${n === 1 ? singular : plural}`;

const en = {
  views: "Views",
  viewAsk: "Ask",
  viewChat: "Chat",
  viewDocuments: "Documents",
  otherLanguage: "日本語で表示する",
  theme: { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" },

  askHeading: "Ask your documents",
  modes: "What to do",
  modeAsk: "Ask",
  modeSearch: "Search",
  boxAsk: "Ask a question",
  boxSearch: "Search by words or meaning",
  goAsk: "Ask",
  goSearch: "Search",
  filters: (n) => (n ? `Filters (${n})` : "Filters"),
  types: "Type",
  by: "Search by",
  byBoth: "Words and meaning",
  byMeaning: "Meaning",
  byWords: "Words",
  inPath: "Only in this folder or file",
  inPathHint: "notes/2026 or *.pdf",

  holds: (documents, folders) => `${one(documents, "document", "documents")} in ${one(folders, "folder", "folders")}`,
  emptyHeading: "No documents yet",
  emptyText: "Drop files anywhere on this page, or name a folder when you start: kogata serve FOLDER",
  looking: "Looking…",
  answer: "Answer",
  sources: "Sources",
  citation: (n, name) => `Source ${n}: ${name}`,
  alsoLooked: (n) => `${one(n, "passage was", "passages were")} looked at`,
  notFound: "Not found in these documents",
  notFoundNear: "No sentence answers it well enough. The passages that come nearest:",
  notFoundNothing: "No passage has anything to do with it.",
  searchInstead: "Search for it instead",
  nothingFound: "Nothing found",
  nothingFoundHint: "Try other words, or fewer filters.",
  hits: (n) => one(n, "passage", "passages"),
  more: "More passages",
  page: (n) => `page\u00a0${number(n)}`,
  scores: (meaning, words) =>
    [meaning && `meaning ${meaning}`, words && `words ${words}`].filter(Boolean).join(" · "),
  scoresHint: "How well the meaning (cosine) and the words (BM25) fit",
  original: "Original file",
  openText: (name) => `Open the text of ${name}`,
  earlier: "Earlier text",
  later: "Later text",
  noText: "This document holds no text.",
  close: "Close",

  chatHeading: "Talk about your documents",
  chatText: "The model answers from the passages that are found for each question, and says which. It can be wrong: follow the numbers.",
  chatWriter: (id) => `Model: ${id}`,
  chatTiny: "This is a tiny demonstration that knows only children’s stories. It shows how a chat works, and answers nothing.",
  chatNoWriter: "No model that writes is running",
  chatNoWriterHow: "A chat needs a language model. Start Kogata with one:",
  chatNoWriterTry: "MODEL is a short name such as “bitnet-2b” (kogata models lists them), a folder or the name of a model on the Hugging Face hub. “tiny” comes along and shows how it works.",
  chatBox: "Message",
  chatSend: "Send",
  chatStop: "Stop",
  chatDocuments: "My documents",
  chatNew: "New chat",
  chatNewAsk: "Begin a new chat?",
  chatNewDetail: "This one is kept nowhere but on this page.",
  chatNewYes: "Begin anew",
  chatQuestion: (n) => `Question ${n}`,
  chatLooking: "Looking in your documents…",
  chatReading: (done, total) => (total ? `Reading: ${done} of ${total} tokens` : "Reading…"),
  chatStopped: "Stopped.",
  chatGiven: "Passages that the model was given",

  indexing: {
    counting: () => "Looking for files…",
    reading: (done, total) => `Reading files: ${number(done)} of ${number(total)}`,
    meaning: (done, total) => `Computing meaning: ${number(done)} of ${number(total)} passages`,
    other: () => "Indexing…",
  },
  indexingHint: { reading: "What is read can be searched by words at once.", meaning: "Everything can be searched by words already." },
  left: (time) => `about ${time} left`,
  indexingFailed: (why) => `Indexing stopped: ${why}`,
  addHeading: "Add files",
  dropHere: "Drop files or folders here",
  dropAnywhere: "Drop to add to your documents",
  choose: "Choose files",
  kept: (files, size) => `Copies of added files are kept in this folder (${one(files, "file", "files")}, ${size}):`,
  empty: "Empty",
  emptyAsk: "Empty the folder of added files?",
  emptyDetail: (files, folder) => `${one(files, "copy", "copies")} in ${folder} will be deleted and forgotten. The files they were copied from stay.`,
  emptied: (n) => `${one(n, "file", "files")} removed.`,
  sendWaiting: "Waiting",
  sending: (percent) => `Sending, ${percent} %`,
  sent: "Reading…",
  readWords: "Ready by words, meaning follows",
  retry: "Try again",
  clear: "Clear this list",
  fileReady: (name) => `${name} is ready.`,
  folders: "Folders",
  noFolders: "No folder is indexed. Name one when you start: kogata serve FOLDER",
  folderDocuments: (n) => one(n, "document", "documents"),
  folderSkipped: (n) => `${number(n)} skipped`,
  folderMissing: "not there now; what was read is kept",
  folderUploads: "added files",
  list: "All documents",
  find: "Name or folder",
  folder: "Folder",
  state: "State",
  anyFolder: "All folders",
  anyState: "All states",
  states: { meaning: "Ready", waiting: "Meaning to come", words: "By words only", skipped: "Skipped" },
  statesHint: {
    meaning: "Found by words and by meaning",
    waiting: "Found by words; its meaning is still to be computed",
    words: "Found by words only: the model does not know its script",
    skipped: "Not searchable",
  },
  skippedSum: (n) => `${one(n, "file was", "files were")} skipped`,
  showSkipped: "Show them",
  noneMatch: "No document matches.",
  pages: (n) => one(n, "page", "pages"),
  remove: (name) => `Remove ${name}`,
  removeAsk: (name) => `Remove ${name}?`,
  removeDetail: "Kogata forgets this document. The file itself stays where it is.",
  removeUploaded: "Kogata forgets this document and deletes its copy. The file it was copied from stays.",
  removeYes: "Remove",
  removed: (name) => `${name} was removed.`,
  cancel: "Cancel",
  range: (from, to, total) => `${number(from)}–${number(to)} of ${number(total)}`,
  previous: "Previous",
  next: "Next",

  keys: "Keys",
  keyBox: "Go to the box",
  keyEnter: "Ask; send; open a result",
  keyLine: "A new line in a message",
  keyNext: "Next result",
  keyPrevious: "Previous result",
  keyEscape: "Close what is open; stop an answer",
  keyHelp: "Show these keys",

  keyHeading: "This Kogata asks for its key",
  keyText: "It was printed where kogata serve was started. This tab keeps it until it is closed.",
  keyWrong: "That key was not accepted.",
  keyLabel: "Key",
  keyGo: "Continue",
  starting: "Kogata is getting ready. This page goes on by itself.",
  unreachable: "Kogata cannot be reached. This page goes on by itself when it is back.",
  failed: "That did not work",
  errors: {
    0: "Kogata cannot be reached.", 413: "The file is too large.", 415: "Files of this kind cannot be added.",
    429: "Too many requests at once. Try again in a moment.",
    engine_unavailable: "Kogata is getting ready. Try again in a moment.", 504: "This took too long and was given up.", 507: "The disk is full.",
  },
  gone: "The document is no longer in the index, or its file is no longer there.",
  blocked: "The browser did not open a tab, so the file was saved instead.",

  reasons: {
    binary: "not text", changed: "changed while read", corrupt: "damaged", crashed: "crashed its reader", empty: "nothing in it",
    encrypted: "needs a password", garbled: "text comes out as rubbish", memory: "needed too much memory",
    scanned: "scans without text", timeout: "took too long", too_large: "too large", unreadable: "cannot be opened",
    unsupported: "format not supported", excluded: "excluded", hidden: "hidden", ignored: "ignored by .gitignore",
    left_out: "left out by default", link: "link to elsewhere", loop: "links in a circle", special: "not a regular file",
  },
  notes: [],
};

const ja = {
  views: "表示",
  viewAsk: "質問",
  viewChat: "対話",
  viewDocuments: "文書",
  otherLanguage: "Show in English",
  theme: { auto: "配色：システムに合わせる", light: "配色：ライト", dark: "配色：ダーク" },

  askHeading: "文書に質問する",
  modes: "操作",
  modeAsk: "質問",
  modeSearch: "検索",
  boxAsk: "質問を入力してください",
  boxSearch: "言葉や内容で探す",
  goAsk: "質問する",
  goSearch: "検索する",
  filters: (n) => (n ? `絞り込み（${n}）` : "絞り込み"),
  types: "種類",
  by: "探し方",
  byBoth: "言葉と意味",
  byMeaning: "意味",
  byWords: "言葉",
  inPath: "このフォルダーまたはファイルの中だけ",
  inPathHint: "notes/2026 や *.pdf",

  holds: (documents, folders) => `${number(folders)} 個のフォルダーに ${number(documents)} 件の文書があります`,
  emptyHeading: "文書がまだありません",
  emptyText: "このページにファイルをドロップするか、起動するときにフォルダーを指定してください： kogata serve フォルダー",
  looking: "探しています…",
  answer: "答え",
  sources: "出典",
  citation: (n, name) => `出典 ${n}：${name}`,
  alsoLooked: (n) => `調べた箇所：${number(n)} 件`,
  notFound: "これらの文書には見つかりません",
  notFoundNear: "はっきり答えている文がありません。近い箇所は次のとおりです。",
  notFoundNothing: "関係のある箇所もありません。",
  searchInstead: "検索してみる",
  nothingFound: "見つかりません",
  nothingFoundHint: "別の言葉で探すか、絞り込みを減らしてください。",
  hits: (n) => `${number(n)} 件の箇所`,
  more: "さらに表示",
  page: (n) => `${number(n)} ページ`,
  scores: (meaning, words) => [meaning && `意味 ${meaning}`, words && `言葉 ${words}`].filter(Boolean).join(" · "),
  scoresHint: "意味（コサイン）と言葉（BM25）の近さ",
  original: "元のファイル",
  openText: (name) => `${name} の本文を開く`,
  earlier: "前の部分",
  later: "続き",
  noText: "この文書には文字がありません。",
  close: "閉じる",

  chatHeading: "文書について話す",
  chatText: "質問ごとに見つかった箇所をもとにモデルが答え、どの箇所によるかを番号で示します。間違うこともあるので、番号から確かめてください。",
  chatWriter: (id) => `モデル：${id}`,
  chatTiny: "これは物語だけを学んだ、ごく小さな見本です。対話の動きを見るためのもので、質問には答えられません。",
  chatNoWriter: "文章を書くモデルが動いていません",
  chatNoWriterHow: "対話には言語モデルが必要です。次のように起動してください。",
  chatNoWriterTry: "MODEL は「bitnet-2b」のような短い名前（kogata models が一覧を示します）、フォルダー、または Hugging Face のモデル名です。付属の「tiny」で動きを試せます。",
  chatBox: "メッセージ",
  chatSend: "送信",
  chatStop: "停止",
  chatDocuments: "文書をもとに答える",
  chatNew: "新しい対話",
  chatNewAsk: "新しい対話を始めますか",
  chatNewDetail: "いまの対話は、このページの中にしかありません。",
  chatNewYes: "始める",
  chatQuestion: (n) => `質問 ${n}`,
  chatLooking: "文書の中を探しています…",
  chatReading: (done, total) => (total ? `読んでいます：${total} トークンのうち ${done}` : "読んでいます…"),
  chatStopped: "停止しました。",
  chatGiven: "モデルに渡した箇所",

  indexing: {
    counting: () => "ファイルを探しています…",
    reading: (done, total) => `読み取り中：${number(total)} 件のうち ${number(done)} 件`,
    meaning: (done, total) => `意味を計算中：${number(total)} か所のうち ${number(done)} か所`,
    other: () => "索引を作成中…",
  },
  indexingHint: { reading: "読み終わった文書から順に、言葉で検索できます。", meaning: "言葉による検索は、すべての文書でもう使えます。" },
  left: (time) => `残り約 ${time}`,
  indexingFailed: (why) => `索引の作成が止まりました：${why}`,
  addHeading: "ファイルを追加",
  dropHere: "ここにファイルやフォルダーをドロップ",
  dropAnywhere: "ドロップして文書に追加",
  choose: "ファイルを選ぶ",
  kept: (files, size) => `追加したファイルの写しは、次のフォルダーに保存されます（${number(files)} 件、${size}）。`,
  empty: "空にする",
  emptyAsk: "追加したファイルのフォルダーを空にしますか",
  emptyDetail: (files, folder) => `${folder} にある ${number(files)} 件の写しを削除し、索引からも取り除きます。写す前のファイルはそのまま残ります。`,
  emptied: (n) => `${number(n)} 件を削除しました。`,
  sendWaiting: "待機中",
  sending: (percent) => `送信中 ${percent} %`,
  sent: "読み取り中…",
  readWords: "言葉で検索できます（意味は計算中）",
  retry: "やり直す",
  clear: "この一覧を消す",
  fileReady: (name) => `${name} を検索できるようになりました。`,
  folders: "フォルダー",
  noFolders: "フォルダーがありません。起動するときに指定してください： kogata serve フォルダー",
  folderDocuments: (n) => `${number(n)} 件`,
  folderSkipped: (n) => `対象外 ${number(n)} 件`,
  folderMissing: "いまは見つかりません。読み取った内容は残っています",
  folderUploads: "追加したファイル",
  list: "すべての文書",
  find: "名前またはフォルダー",
  folder: "フォルダー",
  state: "状態",
  anyFolder: "すべてのフォルダー",
  anyState: "すべての状態",
  states: { meaning: "検索可", waiting: "意味は計算待ち", words: "言葉のみ", skipped: "対象外" },
  statesHint: {
    meaning: "言葉でも意味でも見つかります",
    waiting: "言葉で見つかります。意味はこれから計算します",
    words: "言葉でだけ見つかります。モデルの知らない文字です",
    skipped: "検索できません",
  },
  skippedSum: (n) => `対象外のファイルが ${number(n)} 件あります`,
  showSkipped: "表示する",
  noneMatch: "当てはまる文書がありません。",
  pages: (n) => `${number(n)} ページ`,
  remove: (name) => `${name} を取り除く`,
  removeAsk: (name) => `${name} を取り除きますか`,
  removeDetail: "索引から取り除きます。ファイルそのものはそのまま残ります。",
  removeUploaded: "索引から取り除き、保存した写しを削除します。写す前のファイルはそのまま残ります。",
  removeYes: "取り除く",
  removed: (name) => `${name} を取り除きました。`,
  cancel: "やめる",
  range: (from, to, total) => `${number(total)} 件中 ${number(from)}–${number(to)} 件`,
  previous: "前へ",
  next: "次へ",

  keys: "キー操作",
  keyBox: "入力欄へ移る",
  keyEnter: "質問する、送信する、結果を開く",
  keyLine: "メッセージの中で改行する",
  keyNext: "次の結果",
  keyPrevious: "前の結果",
  keyEscape: "開いているものを閉じる、答えを止める",
  keyHelp: "この一覧を表示する",

  keyHeading: "キーが必要です",
  keyText: "キーは kogata serve を起動した画面に表示されています。このタブを閉じるまで保存されます。",
  keyWrong: "そのキーは受け付けられませんでした。",
  keyLabel: "キー",
  keyGo: "続ける",
  starting: "Kogata の準備をしています。終わると自動で続きます。",
  unreachable: "Kogata に接続できません。戻ると自動で続きます。",
  failed: "うまくいきませんでした",
  errors: {
    0: "Kogata に接続できません。", 413: "ファイルが大きすぎます。", 415: "この種類のファイルは追加できません。", 429: "要求が多すぎます。少し待ってからもう一度試してください。",
    engine_unavailable: "Kogata の準備をしています。少し待ってからもう一度試してください。", 504: "時間がかかりすぎたため中止しました。", 507: "ディスクがいっぱいです。",
  },
  gone: "この文書は索引にないか、ファイルがなくなっています。",
  blocked: "タブを開けなかったので、ファイルを保存しました。",

  reasons: {
    binary: "テキストではない", changed: "読み取り中に変更された", corrupt: "壊れている", crashed: "読み取りが異常終了した", empty: "中身がない",
    encrypted: "パスワードが必要", garbled: "文字化けする", memory: "メモリーを使いすぎる",
    scanned: "文字情報のないスキャン", timeout: "時間がかかりすぎる", too_large: "大きすぎる", unreadable: "開けない",
    unsupported: "対応していない形式", excluded: "指定により除外", hidden: "隠しファイル", ignored: ".gitignore により除外",
    left_out: "既定で除外", link: "外へのリンク", loop: "循環するリンク", special: "通常のファイルではない",
  },
  // The engine's notes are English sentences; these are the ones a person is likely to meet.
  notes: [
    [/^([\d,]+) passages still wait for their vectors/, "$1 か所は意味の計算を待っており、言葉でだけ見つかります。"],
    [/^No indexed document passes the filter/, "絞り込みに当てはまる文書がありません。"],
    [/^The index holds no document yet/, "索引にまだ文書がありません。"],
    [/^The index holds no vectors yet/, "意味の計算がまだなので、言葉だけで探しました。"],
    [/^The query has no letters or digits/, "言葉として探せる文字や数字がありません。"],
    [/^(.+) passages fit into the context of/, "モデルが一度に読めるのは、見つかった箇所のうち一部です（$1）。"],
    [/^The model named sources that it was not given.*: (.+)\.$/, "モデルが挙げた番号のうち、渡した箇所にないものを取り除きました：$1"],
    [/^The model named no source/, "モデルは出典を挙げませんでした。"],
    [/^The answer was cut off at its greatest length/, "答えは長さの上限で切れています。"],
    [/^The conversation is too long .* its first (\d+) messages/, "対話が長くなったため、最初の $1 件を除いてモデルに渡しました。"],
    [/does not know the script of this query/, "モデルの知らない文字なので、言葉だけで探しました。"],
  ],
};

export const languages = { en, ja };

const KEPT = "kogata.language";
export let language = pick();
export let t = languages[language];

function pick() {
  const kept = localStorage.getItem(KEPT);
  if (kept in languages) return kept;
  const known = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in languages);
  return known ?? "en";
}

/** Change the language of the page and remember it; whoever shows sentences shows them again. */
export function setLanguage(to) {
  localStorage.setItem(KEPT, to);
  language = to;
  t = languages[to];
}

/** Put the sentences of the language into index.html's elements. */
export function fillIn() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t[element.dataset.t];
  for (const name of ["aria-label", "title", "placeholder"]) {
    for (const element of document.querySelectorAll(`[data-t-${name}]`)) {
      element.setAttribute(name, t[element.getAttribute(`data-t-${name}`)]);
    }
  }
}

/** Why a file was skipped, in a few words. */
export const reason = (code) => t.reasons[code] ?? code.replaceAll("_", " ");

/** A note of the engine in the language of the page where it is known, else as it is, with its language. */
export function note(sentence) {
  const known = t.notes.find(([pattern]) => pattern.test(sentence));
  if (!known) return { text: sentence, lang: "en" };
  return { text: known[1].replace("$1", known[0].exec(sentence)[1] ?? ""), lang: language };
}

/** What an ApiError means: in the language of the page where its kind is known, else as the server put it. */
export const explain = (error) => t.errors[error.code] ?? t.errors[error.status] ?? (error.message || t.failed);

export const number = (n, digits = 0) =>
  n.toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: digits });

/** 12,345 bytes as "12 kB". */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, bytes ? Math.floor(Math.log10(bytes) / 3) : 0);
  const value = bytes / 1000 ** step;
  return `${number(value, step && value < 10 ? 1 : 0)}\u00a0${units[step]}`;
}

/** Seconds in the largest unit that fits. */
export function duration(seconds) {
  const [value, unit] = seconds < 60 ? [seconds, "second"] : seconds < 3600 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  return Math.max(1, Math.round(value)).toLocaleString(language, { style: "unit", unit, unitDisplay: "short" });
}

/** The language as the browser's owner writes it: "en-GB" rather than "en". */
const region = () => navigator.languages.find((tag) => tag.startsWith(language)) ?? language;

/** A day, from Unix seconds. */
export const day = (seconds) => new Date(seconds * 1000).toLocaleDateString(region(), { dateStyle: "medium" });
