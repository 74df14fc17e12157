//! Who may ask for a page. Decided from the head of a request alone, before anything looks at its path, for every method.
//!
//! 1. The host is the one that this listener has, exactly, and named once. A name that somebody else's DNS points to
//!    this machine is another one (DNS rebinding).
//! 2. `Sec-Fetch-Site`, where a browser sends it (W3C Fetch Metadata), says that the page itself or the person asks.
//! 3. `Origin`, where it is sent, is this very host's. Whatever changes something has to send it.
//! 4. No request wants to become another protocol (WebSocket).
//! 5. The cookie holds the key of a browser that was let in; or this is the one request that brings the one-time token.

use http::header::{CONNECTION, COOKIE, HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

use super::entry::Entry;

/// The cookie's name.
pub(super) const COOKIE_NAME: &str = "candor";

/// Where the one-time token is brought.
pub(super) const ENTER: &str = "/enter";

/// Fetch Metadata's word on who asks.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request that may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// By a browser that was let in; its key.
    Known(String),
    /// Brings a token, which has still to be looked at.
    Entering {
        /// The token.
        token: String,
        /// The key of a browser that was let in before: a token that was used keeps it from nothing.
        known: Option<String>,
    },
}

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Another host was asked for.
    #[error("this is not the address of these pages")]
    Host,
    /// Another site asks.
    #[error("another site asked for this page")]
    Site,
    /// It wants to become another protocol.
    #[error("these pages speak HTTP alone")]
    Protocol,
    /// It has no key.
    #[error("this browser has not been let in")]
    Key,
}

/// Knows the host of one listener.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    host: String,
}

impl Guard {
    /// For a listener at this port of the loopback address.
    pub(super) fn new(port: u16) -> Self {
        Self {
            // Not `localhost`, which may stand for an address that this listener does not have.
            host: format!("127.0.0.1:{port}"),
        }
    }

    /// Judges a request.
    pub(super) fn judge(&self, head: &Parts, entry: &Entry, now_ms: i64) -> Result<Pass, Refused> {
        self.check_host(head)?;
        self.check_site(head)?;
        if head.headers.contains_key(UPGRADE) || asks_to_upgrade(&head.headers) {
            return Err(Refused::Protocol);
        }
        let known = keys(&head.headers)
            .find(|key| entry.knows(key, now_ms))
            .map(str::to_owned);
        if head.method == Method::GET
            && head.uri.path() == ENTER
            && let Some(token) = token(head)
        {
            return Ok(Pass::Entering { token, known });
        }
        known.map(Pass::Known).ok_or(Refused::Key)
    }

    fn check_host(&self, head: &Parts) -> Result<(), Refused> {
        let named = only(&head.headers, &HOST).ok_or(Refused::Host)?;
        // A request line can name a host of its own, and then that one counts (RFC 9112, 3.2.2).
        let authority = head
            .uri
            .authority()
            .map_or(named, |authority| authority.as_str());
        if named == self.host && authority == self.host {
            Ok(())
        } else {
            Err(Refused::Host)
        }
    }

    fn check_site(&self, head: &Parts) -> Result<(), Refused> {
        let changes = head.method != Method::GET && head.method != Method::HEAD;
        if head.headers.contains_key(&FETCH_SITE) {
            match only(&head.headers, &FETCH_SITE) {
                Some("same-origin") => {}
                // The person typed it, or came from another program.
                Some("none") if !changes => {}
                _ => return Err(Refused::Site),
            }
        }
        if head.headers.contains_key(ORIGIN) {
            let origin = only(&head.headers, &ORIGIN);
            let own = Some(self.host.as_str());
            let is_own = origin.and_then(|origin| origin.strip_prefix("http://")) == own;
            return if is_own { Ok(()) } else { Err(Refused::Site) };
        }
        if changes { Err(Refused::Site) } else { Ok(()) }
    }
}

/// The value of a header that is there exactly once, and is text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    let words = headers.get_all(CONNECTION).iter();
    words
        .flat_map(|value| value.to_str().unwrap_or("upgrade").split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

fn token(head: &Parts) -> Option<String> {
    let query = head.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, token)| token.into_owned())
}

/// Every key that the browser sends: another program of this machine can have set a cookie of the same name.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;

    const PORT: u16 = 24_680;
    const HERE: &str = "127.0.0.1:24680";

    struct Door {
        guard: Guard,
        entry: Entry,
        key: String,
        _folder: tempfile::TempDir,
    }

    /// A door with one browser that is in.
    fn door() -> Door {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        entry.set_port(PORT).unwrap();
        let address = super::super::address(folder.path()).unwrap();
        let token = address.split("token=").nth(1).unwrap();
        let key = entry.enter(token, None, 0).unwrap().unwrap();
        Door {
            guard: Guard::new(PORT),
            entry,
            key,
            _folder: folder,
        }
    }

    impl Door {
        /// Judges a request with these headers; `KEY` stands for the key of the browser that is in.
        fn judge(
            &self,
            method: &str,
            path: &str,
            headers: &[(&str, &str)],
        ) -> Result<Pass, Refused> {
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, value.replace("KEY", &self.key));
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            self.guard.judge(&head, &self.entry, 1)
        }
    }

    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    const COOKIE: (&str, &str) = ("cookie", "candor=KEY");

    #[test]
    fn a_browser_that_is_in_gets_through() {
        let door = door();
        let known = Ok(Pass::Known(door.key.clone()));
        let host = ("host", HERE);
        let own = ("origin", "http://127.0.0.1:24680");
        assert_eq!(door.judge("GET", "/", &[host, COOKIE]), known);
        assert_eq!(door.judge("HEAD", "/", &[host, COOKIE]), known);
        assert_eq!(
            door.judge("GET", "/", &[host, COOKIE, ("sec-fetch-site", "none")]),
            known
        );
        assert_eq!(
            door.judge("POST", "/backups/run", &[host, COOKIE, own]),
            known
        );
        let same = ("sec-fetch-site", "same-origin");
        assert_eq!(
            door.judge("POST", "/backups/run", &[host, COOKIE, own, same]),
            known
        );
        // Another program of this machine can set cookies for the same host.
        let several = ("cookie", "a=b; candor=planted; candor=KEY");
        assert_eq!(door.judge("GET", "/", &[host, several]), known);
    }

    #[test]
    fn a41_another_host_is_refused_for_every_method() {
        let door = door();
        let hosts = [
            "evil.example",
            "evil.example:24680",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1:24680.evil.example",
            "127.0.0.1:24680@evil.example",
            "127.0.0.2:24680",
            "[::1]:24680",
            "0.0.0.0:24680",
            "localhost:24680",
            "localhost.:24680",
            "",
        ];
        for method in METHODS {
            for host in hosts {
                let judged = door.judge(
                    method,
                    "/",
                    &[("host", host), COOKIE, ("origin", "http://127.0.0.1:24680")],
                );
                assert_eq!(judged, Err(Refused::Host), "{method} {host:?}");
            }
            assert_eq!(
                door.judge(method, "/", &[COOKIE]),
                Err(Refused::Host),
                "none"
            );
            let twice = [("host", HERE), ("host", HERE), COOKIE];
            assert_eq!(door.judge(method, "/", &twice), Err(Refused::Host), "twice");
            let absolute = door.judge(method, "http://evil.example/", &[("host", HERE), COOKIE]);
            assert_eq!(absolute, Err(Refused::Host), "in the request line");
        }
    }

    #[test]
    fn a41_another_site_is_refused_for_every_method() {
        let door = door();
        let foreign = [
            ("origin", "null"),
            ("origin", "http://evil.example"),
            ("origin", "https://127.0.0.1:24680"),
            ("origin", "http://127.0.0.1"),
            ("origin", "http://127.0.0.1:24681"),
            ("origin", "http://localhost:24680"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "Same-Origin"),
            ("sec-fetch-site", ""),
        ];
        for method in METHODS {
            for header in foreign {
                let judged = door.judge(method, "/", &[("host", HERE), COOKIE, header]);
                assert_eq!(judged, Err(Refused::Site), "{method} {header:?}");
            }
            let own = ("origin", "http://127.0.0.1:24680");
            let twice = [("host", HERE), COOKIE, own, own];
            assert_eq!(door.judge(method, "/", &twice), Err(Refused::Site), "twice");
        }
        // What changes something says where it comes from, and is never typed.
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let silent = door.judge(method, "/", &[("host", HERE), COOKIE]);
            assert_eq!(silent, Err(Refused::Site), "{method}");
            let typed = [
                ("host", HERE),
                COOKIE,
                ("origin", "http://127.0.0.1:24680"),
                ("sec-fetch-site", "none"),
            ];
            assert_eq!(
                door.judge(method, "/", &typed),
                Err(Refused::Site),
                "{method}"
            );
        }
    }

    #[test]
    fn c05_a_key_grows_old_while_the_program_runs() {
        let door = door();
        let request = http::Request::builder().header("host", HERE);
        let request = request.header("cookie", format!("candor={}", door.key));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let month = 30 * 24 * 60 * 60 * 1000;
        let judge = |now| door.guard.judge(&head, &door.entry, now);
        assert!(judge(month - 1).is_ok());
        assert_eq!(judge(month), Err(Refused::Key));
        assert_eq!(judge(-1), Err(Refused::Key), "made in the future");
    }

    #[test]
    fn a41_no_request_becomes_another_protocol() {
        let door = door();
        for header in [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
        ] {
            let judged = door.judge("GET", "/live", &[("host", HERE), COOKIE, header]);
            assert_eq!(judged, Err(Refused::Protocol), "{header:?}");
        }
    }

    #[test]
    fn c05_without_the_key_nothing_is_answered() {
        let door = door();
        let own = ("origin", "http://127.0.0.1:24680");
        let short = door.key[..63].to_owned();
        for cookie in [
            "",
            "candor=",
            "candor=0",
            "other=KEY",
            "Candor=KEY",
            &format!("candor={short}"),
            "candor=KEYx",
        ] {
            for method in METHODS {
                let judged = door.judge(method, "/", &[("host", HERE), own, ("cookie", cookie)]);
                assert_eq!(judged, Err(Refused::Key), "{method} {cookie:?}");
            }
        }
        // Nor is the way in open to another method, or to who brings nothing.
        assert_eq!(
            door.judge("POST", "/enter?token=1", &[("host", HERE), own]),
            Err(Refused::Key)
        );
        assert_eq!(
            door.judge("GET", "/enter", &[("host", HERE)]),
            Err(Refused::Key)
        );
        let cross = [("host", HERE), ("sec-fetch-site", "cross-site")];
        assert_eq!(
            door.judge("GET", "/enter?token=1", &cross),
            Err(Refused::Site)
        );
        let entering = door.judge("GET", "/enter?token=1", &[("host", HERE)]);
        let token = "1".to_owned();
        assert_eq!(entering, Ok(Pass::Entering { token, known: None }));
    }
}
