//! A request as the pages read it, and what they answer.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use candor_client::commands::{Command, Event, Failure, FailureKind, View};
use candor_client::path_text::PathText;
use candor_client::{Cancel, Entropy as _, SystemEntropy};
use candor_wire::ids::to_hex;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, REFERER};
use http::{HeaderValue, Method, StatusCode, Uri};
use maud::Markup;
use zeroize::{Zeroize as _, Zeroizing};

use super::jobs::Kind;
use super::shell::{self, Place, Sheet};
use super::{Shared, jobs_part};
use crate::failure::{Doing as _, Outcome};

/// Largest form, in bytes: a few paths and a few sentences.
const FORM_MAX_BYTES: usize = 64 << 10;

/// Farthest place in a list that a page begins at: nobody turns a thousand pages.
const FROM_MAX: u64 = 100_000;

/// The field of an address that says which words its page is to tell.
const TOLD: &str = "told";

/// The header that htmx sends with its requests.
const HTMX_REQUEST: &str = "hx-request";

/// What htmx's requests for a part of the page itself say they want.
const HTMX_TYPE: &str = "hx-request-type";

/// What the scripts of one answer bear. A response has it as an extension, for its policy.
#[derive(Debug, Clone)]
pub(super) struct Nonce(pub(super) String);

impl Nonce {
    /// 128 random bits, as the policy's own standard asks for.
    fn draw() -> Outcome<Self> {
        let mut bytes = [0; 16];
        SystemEntropy
            .fill(&mut bytes)
            .doing(|| "draw random numbers".to_owned())?;
        Ok(Self(to_hex(&bytes)))
    }
}

/// The key of the browser that asks.
#[derive(Debug, Clone)]
pub(super) struct Browser(pub(super) String);

/// Names and values of a query or a form. Wiped when dropped: a form may hold a passphrase, or the phrase.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Drop for Fields {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, value)| value.zeroize());
    }
}

impl Fields {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(bytes);
        Self(pairs.into_owned().collect())
    }

    /// The value of a field that is filled in. Blanks at the end of a name are part of it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.trim().is_empty())
    }

    /// The value of a field that may be a secret; empty if there is none.
    pub(super) fn secret(&self, name: &str) -> Zeroizing<String> {
        let found = self.0.iter().find(|(field, _)| field == name);
        Zeroizing::new(found.map(|(_, value)| value.clone()).unwrap_or_default())
    }

    /// Where a page of a list begins.
    pub(super) fn from(&self) -> usize {
        let from = self.number("from").unwrap_or(0).min(FROM_MAX);
        usize::try_from(from).unwrap_or(0)
    }

    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let fields = self.0.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.clone()).collect()
    }

    /// The value of a field that a form always has.
    pub(super) fn need(&self, name: &str, what: &str) -> Result<&str, Failure> {
        self.get(name)
            .ok_or_else(|| usage(format!("{what} is missing")))
    }

    /// A path, byte for byte: `raw` is one whose bytes are no text.
    pub(super) fn path(&self) -> Option<PathText> {
        // Blanks at the end of a name are part of it.
        let text = self.0.iter().find(|(field, _)| field == "path");
        let text = text.map(|(_, value)| value.clone());
        let raw = self.get("raw").map(str::to_owned);
        match (text, raw) {
            (None, None) => None,
            (text, raw) => Some(PathText {
                text: text.unwrap_or_default(),
                raw,
            }),
        }
        .filter(|path| !path.to_bytes().is_empty())
    }

    /// A path that has to begin at the root.
    pub(super) fn absolute_path(&self) -> Result<PathText, Failure> {
        absolute(self.path())
    }

    /// The same under another name.
    pub(super) fn absolute(&self, name: &str) -> Result<PathText, Failure> {
        absolute(self.get(name).map(|text| PathText {
            text: text.trim().to_owned(),
            raw: None,
        }))
    }

    /// A number, or none.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.trim().parse().ok()
    }
}

fn absolute(path: Option<PathText>) -> Result<PathText, Failure> {
    let path = path.ok_or_else(|| usage("the folder is missing".to_owned()))?;
    if path.to_path().is_absolute() {
        return Ok(path);
    }
    let sentence = format!("{} is not a whole path: it has to begin with /", path.text);
    Err(usage(sentence))
}

/// The form makes no sense as it was filled in.
pub(super) fn usage(sentence: String) -> Failure {
    Failure {
        kind: FailureKind::Usage,
        sentence,
        hint: None,
        causes: Vec::new(),
    }
}

/// An answer that does not fit its question.
pub(super) fn unexpected() -> Failure {
    crate::progress::unexpected().into()
}

/// A request that was let in.
pub(super) struct Asked {
    pub(super) shared: Arc<Shared>,
    pub(super) browser: Browser,
    pub(super) query: Fields,
    pub(super) form: Fields,
    /// Whether a script asks for a part of the page that is open.
    pub(super) by_script: bool,
    /// Which words it is to be told; a HEAD request takes none.
    told: Option<u64>,
    /// Path of the page that it comes from, as the browser says.
    pub(super) from: Option<String>,
}

impl FromRequest<Arc<Shared>> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let Some(browser) = head.extensions.get::<Browser>().cloned() else {
            return Err(StatusCode::FORBIDDEN.into_response());
        };
        let query = Fields::read(head.uri.query().unwrap_or_default().as_bytes());
        let form = if head.method == Method::POST {
            let bytes: Bytes = axum::body::to_bytes(body, FORM_MAX_BYTES)
                .await
                .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
            let fields = Fields::read(&bytes);
            // Where nobody else holds it, what was typed is gone from here.
            if let Ok(mut bytes) = bytes.try_into_mut() {
                bytes.zeroize();
            }
            fields
        } else {
            Fields::default()
        };
        let from = head
            .headers
            .get(REFERER)
            .and_then(|from| from.to_str().ok());
        let from = from.and_then(|from| from.parse::<Uri>().ok());
        let is_partial = head
            .headers
            .get(HTMX_TYPE)
            .is_none_or(|kind| kind == "partial");
        let told = (head.method == Method::GET)
            .then(|| query.number(TOLD))
            .flatten();
        Ok(Self {
            shared: Arc::clone(shared),
            browser,
            told,
            query,
            form,
            by_script: head.headers.contains_key(HTMX_REQUEST) && is_partial,
            from: from.map(|from| from.path().to_owned()),
        })
    }
}

/// What a page answers.
pub(super) enum Reply {
    /// A page.
    Sheet(Sheet),
    /// A part of a page.
    Part(Markup),
    /// Go there now.
    SeeOther(String),
    /// A file to keep.
    File {
        name: String,
        kind: &'static str,
        content: Body,
    },
}

/// What a handler returns. A failure becomes a page of its own, which leads back to `place`.
pub(super) type Answer = Result<Reply, Failure>;

impl Asked {
    /// Runs a command that is soon done.
    pub(super) async fn run(&self, command: Command) -> Result<View, Failure> {
        let (result, ()) = self.run_with(command, |_| {}).await;
        result
    }

    /// The same, and collects what `each` takes from the events.
    pub(super) async fn run_with<T: Default + Send + 'static>(
        &self,
        command: Command,
        mut each: impl FnMut(Heard<'_, T>) + Send + 'static,
    ) -> (Result<View, Failure>, T) {
        let engine = match self.shared.engine() {
            Ok(engine) => Arc::clone(engine),
            Err(failure) => return (Err(failure), T::default()),
        };
        // Nobody waits for it once the browser went away, and nothing once the program ends.
        let stopping = StopOnDrop(Cancel::default());
        let cancel = stopping.0.clone();
        let mut work = tokio::task::spawn_blocking(move || {
            let mut collected = T::default();
            let mut tell = |event| {
                each(Heard {
                    event,
                    collected: &mut collected,
                    cancel: &cancel,
                });
            };
            (engine.execute(command, &mut tell, &cancel), collected)
        });
        let done = tokio::select! {
            done = &mut work => done,
            () = self.shared.stop.stopped() => {
                stopping.0.cancel();
                work.await
            }
        };
        done.unwrap_or_else(|error| {
            let failure =
                crate::failure::Failure::because("the engine stopped in the middle", &error);
            (Err(failure.into()), T::default())
        })
    }

    /// Begins work that takes longer, and goes to the page that shows it.
    pub(super) fn begin(&self, kind: Kind, title: String, command: Command, then: &str) -> Answer {
        let engine = self.shared.engine()?;
        self.shared.jobs.start(engine, kind, title, command);
        Ok(Reply::SeeOther(then.to_owned()))
    }

    /// Goes to another page, and says there what was done.
    pub(super) fn told(&self, to: &str, words: Markup) -> Answer {
        let number = self.shared.tell(&self.browser, words);
        let joint = if to.contains('?') { '&' } else { '?' };
        Ok(Reply::SeeOther(format!("{to}{joint}{TOLD}={number}")))
    }

    /// Turns an answer into a response, with everything that is around a page.
    pub(super) fn respond(&self, title: &str, place: Place, answer: Answer) -> Response {
        let (status, sheet) = match answer {
            Ok(Reply::Sheet(sheet)) => (StatusCode::OK, sheet),
            Ok(Reply::Part(part)) => return html(StatusCode::OK, part),
            Ok(Reply::SeeOther(to)) => return see_other(&to),
            Ok(Reply::File {
                name,
                kind,
                content,
            }) => return file(&name, kind, content),
            Err(failure) => {
                let status = if failure.kind == FailureKind::Usage {
                    StatusCode::UNPROCESSABLE_ENTITY
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                if self.by_script {
                    return html(StatusCode::OK, shell::failed_question(&failure));
                }
                (status, shell::failed(title, place, &failure))
            }
        };
        self.whole(status, &sheet, jobs_part(&self.shared))
    }

    /// A whole page.
    pub(super) fn whole(&self, status: StatusCode, sheet: &Sheet, jobs: Markup) -> Response {
        let Ok(nonce) = Nonce::draw() else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let told = self
            .told
            .and_then(|number| self.shared.take_told(&self.browser, number));
        let mut response = html(status, shell::page(sheet, told, jobs, &nonce.0));
        response.extensions_mut().insert(nonce);
        response
    }
}

/// Ends a command when whoever waited for it is gone.
struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Something that happened while a command ran.
pub(super) struct Heard<'a, T> {
    pub(super) event: Event,
    pub(super) collected: &'a mut T,
    /// Ends the command: enough was heard.
    pub(super) cancel: &'a Cancel,
}

pub(super) fn html(status: StatusCode, markup: Markup) -> Response {
    let content = HeaderValue::from_static("text/html; charset=utf-8");
    (status, [(CONTENT_TYPE, content)], markup.into_string()).into_response()
}

pub(super) fn see_other(to: &str) -> Response {
    // Addresses are made of literals and of what was encoded for a query.
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn file(name: &str, kind: &'static str, content: Body) -> Response {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let Ok(disposition) = disposition else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_DISPOSITION, disposition),
    ];
    (headers, content).into_response()
}

/// Takes the view that a command answers with.
macro_rules! expect_view {
    ($view:expr, $variant:ident) => {
        match $view {
            candor_client::commands::View::$variant(inner) => Ok(inner),
            _ => Err($crate::pages::request::unexpected()),
        }
    };
}
pub(super) use expect_view;
