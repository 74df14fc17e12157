//! The pages, as a program on this machine talks to them, byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::person::{Person, Running, ended};

/// What can be asked for: a method and a path on each line.
const ROUTES: &str = include_str!("../../src/pages/routes.txt");

/// Somebody else on this machine.
const NOBODY: u32 = 65_534;

/// Tell the test that runs as somebody else where the pages are, and a key that is good.
const PORT_VARIABLE: &str = "CANDOR_TEST_PAGES_PORT";
const KEY_VARIABLE: &str = "CANDOR_TEST_PAGES_KEY";

/// What the program says once the pages are there.
const READY: &str = "The pages are at";

/// The pages of somebody's device.
struct Pages {
    port: u16,
}

/// What was answered.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn of(head: &str, body: String) -> Option<Self> {
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        Some(Self {
            status,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body,
        })
    }
}

/// Many requests over one connection, as long as the other end keeps it.
struct Conversation {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Conversation {
    fn send(&mut self, method: &str, head: &str, body: &str) -> Answer {
        // A connection that the other end gave up meanwhile is opened anew, once.
        self.try_send(method, head, body)
            .or_else(|_| self.try_send(method, head, body))
            .unwrap()
    }

    fn try_send(&mut self, method: &str, head: &str, body: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                BufReader::new(stream)
            }
        };
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut answer = Answer::of(&head, String::new()).unwrap();
        if method != "HEAD" {
            // What is refused is answered as a whole; nothing else may come here.
            let length = answer.headers["content-length"].parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            answer.body = String::from_utf8_lossy(&body).into_owned();
        }
        let is_over = answer.headers.get("connection").map(String::as_str) == Some("close");
        self.stream = (!is_over).then_some(stream);
        Ok(answer)
    }
}

fn kept(person: &Person) -> Value {
    serde_json::from_str(&fs::read_to_string(person.home().join("pages")).unwrap()).unwrap()
}

fn token(person: &Person) -> String {
    kept(person)["token"].as_str().unwrap().to_owned()
}

impl Pages {
    fn of(person: &Person) -> Self {
        let port = kept(person)["port"].as_u64().unwrap();
        Self {
            port: u16::try_from(port).unwrap(),
        }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends a request and reads everything that comes back; `None` if that is nothing.
    fn send(&self, head: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let request = format!(
            "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // Whoever is not answered may be cut off while they still write.
        let _ = stream.write_all(request.as_bytes());
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply);
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Answer::of(head, body.to_owned())
    }

    /// A request as this device's browser sends it.
    fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> Answer {
        let host = self.host();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\nCookie: candor={key}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        );
        self.send(&head, body).unwrap()
    }

    /// Lets a browser in; its key.
    fn enter(&self, token: &str) -> Option<String> {
        let head = format!(
            "GET /enter?token={token} HTTP/1.1\r\nHost: {}\r\n",
            self.host()
        );
        let answer = self.send(&head, "").unwrap();
        if answer.status == 403 {
            return None;
        }
        assert_eq!(
            (answer.status, answer.headers["location"].as_str()),
            (303, "/")
        );
        let cookie = &answer.headers["set-cookie"];
        for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let key = cookie.strip_prefix("candor=").unwrap();
        Some(key.split(';').next().unwrap().to_owned())
    }
}

/// Somebody whose program runs, with its pages.
fn running() -> (Person, Running) {
    let person = Person::new();
    let mut words = person.up_words();
    words.push("--no-open".to_owned());
    let up = person.start(words, READY);
    up.wait_for("restored and compared");
    (person, up)
}

/// What an attack could have changed.
fn state(person: &Person) -> [String; 3] {
    [
        vec!["consent", "list", "--json"],
        vec!["backup", "list", "--json"],
        vec!["sync", "status", "--json"],
    ]
    .map(|words| person.run(words).must(0).stdout)
}

#[test]
fn a41_no_route_and_no_method_is_open_to_another_site() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let before = state(&person);
    let (port, host) = (pages.port, pages.host());
    let mut pages = Conversation { port, stream: None };
    let cookie = format!("Cookie: candor={key}\r\n");
    let attacks = [
        format!("Host: evil.example:{port}\r\n{cookie}"),
        format!(
            "Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\nSec-Fetch-Site: same-origin\r\n{cookie}"
        ),
        cookie.clone(),
        format!("Host: {host}\r\nHost: evil.example\r\n{cookie}"),
        format!("Host: {host}\r\nOrigin: http://evil.example\r\n{cookie}"),
        format!("Host: {host}\r\nOrigin: null\r\n{cookie}"),
        format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: cross-site\r\n{cookie}"),
        format!("Host: {host}\r\nSec-Fetch-Site: same-site\r\n{cookie}"),
        format!(
            "Host: {host}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{cookie}"
        ),
        format!("Host: {host}\r\nOrigin: http://{host}\r\n"),
        format!(
            "Host: {host}\r\nOrigin: http://{host}\r\nCookie: candor={}\r\n",
            token(&person)
        ),
    ];
    let routes: Vec<&str> = ROUTES
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect();
    for path in routes.iter().chain(&["/enter", "/nothing"]) {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            for attack in &attacks {
                let head = format!("{method} {path} HTTP/1.1\r\n{attack}");
                let answer = pages.send(method, &head, "stored=erased&set=documents");
                let is_refused = matches!(answer.status, 403)
                    || (answer.status == 400 && answer.body.is_empty());
                assert!(is_refused, "{} for {head}", answer.status);
                assert!(!answer.body.contains("documents"), "{head}");
                assert!(
                    !answer.headers.contains_key("access-control-allow-origin"),
                    "{head}"
                );
            }
        }
    }
    assert_eq!(state(&person), before);
    assert_eq!(up.terminate(), 0);
}

#[test]
fn what_was_done_is_told_to_the_browser_that_did_it_and_once() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let [key, other] = [(), ()].map(|()| pages.enter(&token(&person)).unwrap());
    let letters = person.path("letters");
    fs::create_dir(&letters).unwrap();
    let form = format!("path={}", letters.display());
    let done = pages.ask("POST", "/backups/add", &key, &form);
    assert_eq!(done.status, 303);
    let page = &done.headers["location"];
    assert!(page.starts_with("/backups?told="), "{page}");
    let says = |method: &str, key: &str| {
        let answer = pages.ask(method, page, key, "");
        assert_eq!(answer.status, 200);
        answer.body.contains("is on the list")
    };
    assert!(!says("GET", &other), "another browser's words");
    assert!(!says("HEAD", &key), "nobody sees them there");
    assert!(says("GET", &key));
    assert!(!says("GET", &key), "once");
    assert_eq!(up.terminate(), 0);
}

/// Fetches a page until it says this.
fn says_in_the_end(pages: &Pages, path: &str, key: &str, words: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let page = pages.ask("GET", path, key, "");
        assert_eq!(page.status, 200, "{path}");
        if page.body.contains(words) {
            return page.body;
        }
        assert!(
            Instant::now() < deadline,
            "{path} never says {words:?}: {}",
            page.body
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_ledger_is_verified_as_work_that_the_page_shows() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let begun = pages.ask("POST", "/ledger/verify", &key, "");
    assert_eq!(
        (begun.status, begun.headers["location"].as_str()),
        (303, "/ledger")
    );
    let page = says_in_the_end(&pages, "/ledger", &key, "the ledger is whole");
    assert!(page.contains("Newest hash"), "{page}");
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_search_is_followed_by_its_number_and_without_scripts() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let none = "No snapshot has a file of that name.";
    let part_of = |page: &str| {
        let (_, rest) = page.split_once("data-live=\"found-").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    // It leads to the page of what was begun: whoever comes back to that begins nothing else.
    let begun = |address: &str| {
        let answer = pages.ask("GET", address, &key, "");
        assert_eq!(answer.status, 303);
        let place = answer.headers["location"].clone();
        let (_, number) = place.split_once("&job=").unwrap();
        (place.clone(), number.to_owned())
    };
    let (address, number) = begun("/backups/find?glob=no+such+name");
    for _ in 0..2 {
        let page = says_in_the_end(&pages, &address, &key, none);
        assert_eq!(part_of(&page), number, "the same search");
    }
    let part = format!("/parts/found-{number}");
    assert!(says_in_the_end(&pages, &part, &key, none).contains("data-revision"));
    // Another name is another search, whatever number the address has.
    let (address, other) = begun(&format!("/backups/find?glob=*&job={number}"));
    assert_ne!(other, number);
    assert_eq!(address, format!("/backups/find?glob=*&job={other}"));
    let part = format!("/parts/found-{other}");
    says_in_the_end(&pages, &part, &key, "Its folder");
    // One that is not kept says so, as does what is no search.
    says_in_the_end(&pages, "/parts/found-999", &key, "not kept any more");
    pages.ask("POST", "/ledger/verify", &key, "");
    let verified: u64 = other.parse::<u64>().unwrap() + 1;
    let part = format!("/parts/found-{verified}");
    says_in_the_end(&pages, "/ledger", &key, "the ledger is whole");
    says_in_the_end(&pages, &part, &key, "not kept any more");
    // To stop one leads back to what it found.
    let stopped = pages.ask("POST", "/jobs/stop", &key, &format!("job={other}"));
    assert_eq!(stopped.headers["location"], address);
    // What is no pattern is told at once.
    for bad in ["%7Ba".to_owned(), "a".repeat(1025)] {
        let refused = pages.ask("GET", &format!("/backups/find?glob={bad}"), &key, "");
        assert_eq!(refused.status, 422, "{bad}");
    }
    assert_eq!(up.terminate(), 0);
}

/// A page as it reads: without its elements, with one blank where there is white space.
fn words(html: &str) -> String {
    let text: String = html
        .split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text))
        .collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// The first line of the answer to a question of `candor status`.
fn answer<'a>(status: &'a str, question: &str) -> &'a str {
    let mut lines = status.lines().skip_while(|line| *line != question);
    lines.nth(1).unwrap_or_default().trim()
}

#[test]
fn status_in_a_terminal_says_what_the_first_page_says() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let both = || {
        let status = person.run(["status"]).must(0).stdout;
        (status, words(&pages.ask("GET", "/", &key, "").body))
    };
    let is_same = |(status, home): &(String, String)| {
        let [left, asked] = ["What left this device?", "Who asked for my data?"]
            .map(|question| answer(status, question));
        left.contains("left this device today")
            && home.contains(left)
            && asked.starts_with("Nobody.")
            && home.contains(asked)
    };
    // Something may go over a connection between the two.
    let mut said = both();
    for _ in 0..20 {
        if is_same(&said) {
            break;
        }
        thread::sleep(Duration::from_millis(200));
        said = both();
    }
    assert!(is_same(&said), "{}\n{}", said.0, said.1);
    let (status, home) = said;
    let sends = answer(&status, "What is switched on?");
    let sends = sends.split_once("sends ").unwrap().1;
    let sends = sends.split_once(", since").unwrap().0;
    assert!(home.contains(&format!("Sends {sends}")), "{sends}\n{home}");
    let safe = answer(&status, "Is my data safe?");
    assert!(safe.contains("LAST BACKUP") && home.contains("Last backup:"));
    let questions = [
        "Is my data safe?",
        "What is switched on?",
        "What left this device?",
        "Who asked for my data?",
    ];
    for text in [&status, &home] {
        let places = questions.map(|question| text.find(question).unwrap());
        assert!(places.is_sorted(), "{text}");
    }
    assert_eq!(up.terminate(), 0);
}

#[test]
fn a_ledger_that_was_altered_is_no_whole_file() {
    const WHOLE: &str = "0\r\n\r\n";
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let export = || pages.ask("GET", "/ledger/export", &key, "").body;
    let good = export();
    assert!(
        good.contains("ledger-line") && good.ends_with(WHOLE),
        "{good}"
    );
    let segment = person.home().join("ledger/0000000000000001.segment");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let bad = export();
    assert!(
        !bad.ends_with(WHOLE),
        "the browser takes it for whole: {bad}"
    );
    assert_eq!(up.terminate(), 0);
}

#[test]
fn c05_a_token_from_the_file_lets_one_browser_in_and_a_restart_throws_nobody_out() {
    let (person, up) = running();
    let mode = fs::metadata(person.home().join("pages"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let pages = Pages::of(&person);
    let first = token(&person);
    let key = pages.enter(&first).unwrap();
    assert!(pages.enter(&first).is_none(), "used twice");
    assert!(pages.enter("").is_none());
    let home = pages.ask("GET", "/", &key, "");
    assert_eq!(home.status, 200);
    assert!(
        home.body.contains("Is my data safe?") && home.body.contains("documents"),
        "{}",
        home.body
    );
    up.kill();
    let up = person.start(["up", "--no-open"], READY);
    let again = Pages::of(&person);
    assert_eq!(again.port, pages.port, "the port is kept");
    assert_eq!(again.ask("GET", "/", &key, "").status, 200);
    // A browser that is let out is out.
    assert_eq!(again.ask("POST", "/settings/leave", &key, "").status, 303);
    assert_eq!(again.ask("GET", "/", &key, "").status, 403);
    // It may be in the middle of a backup.
    up.kill();
}

#[test]
fn c05_every_answer_forbids_what_is_not_from_here() {
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    for line in ROUTES.lines() {
        let (method, path) = line.split_once(' ').unwrap();
        // The stream does not end by itself, and the program shall go on.
        if path == "/live" || line == "POST /settings/stop" || line == "POST /settings/leave" {
            continue;
        }
        let answer = pages.ask(method, path, &key, "");
        // Without its fields a form is answered with why; nothing is answered with an inner fault, and no page leads away.
        let expected: &[u16] = match method {
            _ if path.starts_with("/welcome") => &[303],
            "GET" => &[200, 422],
            _ => &[303, 422],
        };
        assert!(
            expected.contains(&answer.status),
            "{line}: {}\n{}",
            answer.status,
            answer.body
        );
        let policy = &answer.headers["content-security-policy"];
        for word in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(word), "{line}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{line}"
        );
        assert_eq!(
            answer.headers["cross-origin-resource-policy"], "same-origin",
            "{line}"
        );
        assert!(answer.headers["cache-control"].starts_with("no-"), "{line}");
        for inline in ["<style", "style=", "<script>", " onclick="] {
            assert!(
                !answer.body.contains(inline) || path.starts_with("/assets/"),
                "{line}: {inline}"
            );
        }
        // Another method is not let through to the same place; and the first run is over.
        let other = pages.ask("PUT", path, &key, "");
        let expected = if path.starts_with("/welcome") {
            303
        } else {
            405
        };
        assert_eq!(other.status, expected, "{line}");
    }
    assert_eq!(pages.ask("GET", "/nothing", &key, "").status, 404);
    // A form larger than any that the pages have.
    let large = format!("path={}", "x".repeat(65 << 10));
    assert_eq!(pages.ask("POST", "/backups/add", &key, &large).status, 413);
    assert_eq!(up.terminate(), 0);
}

#[test]
fn c05_another_person_of_this_machine_gets_no_answer() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else.
        return;
    }
    let (person, up) = running();
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    // The test program itself, where somebody else can start it.
    let program = person.path("somebody-else");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(person.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let asks = |uid: u32| {
        let mut command = Command::new(&program);
        command
            .args(["pages::as_somebody_else", "--exact", "--nocapture"])
            .env(PORT_VARIABLE, pages.port.to_string())
            .env(KEY_VARIABLE, &key);
        ended(command.uid(uid).gid(uid).current_dir("/"))
            .must(0)
            .stdout
    };
    // The same request with the same key: whose program it is makes the difference.
    assert!(asks(NOBODY).contains("answer: nothing"));
    assert!(asks(0).contains("answer: 200"));
    assert_eq!(up.terminate(), 0);
}

/// Not a test by itself: what `c05_another_person_of_this_machine_gets_no_answer` runs as another person.
#[test]
fn as_somebody_else() {
    let (Some(port), Some(key)) = (
        std::env::var_os(PORT_VARIABLE),
        std::env::var(KEY_VARIABLE).ok(),
    ) else {
        return;
    };
    let pages = Pages {
        port: port.to_str().unwrap().parse().unwrap(),
    };
    let host = pages.host();
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: candor={key}\r\n");
    let answer = match pages.send(&head, "") {
        None => "nothing".to_owned(),
        Some(answer) => answer.status.to_string(),
    };
    let _ = writeln!(std::io::stdout(), "answer: {answer}");
}

#[test]
fn consent_is_given_and_withdrawn_on_the_pages_as_on_the_command_line() {
    let person = Person::new();
    let words = ["up", "--no-open", "--unprotected-keys", "--recovery-file"].map(str::to_owned);
    let phrase = person.phrase().to_str().unwrap().to_owned();
    let up = person.start(words.into_iter().chain([phrase]), READY);
    let pages = Pages::of(&person);
    let key = pages.enter(&token(&person)).unwrap();
    let documents = person.documents();
    let path = documents.to_str().unwrap();
    assert_eq!(
        pages
            .ask("POST", "/backups/add", &key, &format!("path={path}"))
            .status,
        303
    );
    // Nothing runs before the yes, whoever asks.
    assert_eq!(pages.ask("POST", "/backups/run", &key, "").status, 303);
    let consents = || {
        person
            .run(["consent", "list", "--json"])
            .must(0)
            .field("consents")
    };
    assert_eq!(consents().as_array().unwrap().len(), 0);
    let question = pages.ask("GET", "/services/backup/on", &key, "");
    let hidden = |name: &str| {
        let rest = question
            .body
            .split(&format!("name=\"{name}\" value=\""))
            .nth(1)
            .unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    assert!(question.body.contains("autofocus"), "{}", question.body);
    // A yes to another text than the one that was shown is none.
    let other = pages.ask(
        "POST",
        "/services/backup/on",
        &key,
        "token=00&set=documents",
    );
    assert!(other.status >= 400, "{}", other.status);
    assert_eq!(consents().as_array().unwrap().len(), 0);
    let yes = format!("token={}&set={}", hidden("token"), hidden("set"));
    assert_eq!(
        pages.ask("POST", "/services/backup/on", &key, &yes).status,
        303
    );
    assert_eq!(consents()[0]["state"], "live");
    // Who pressed twice has said yes once, and is not told otherwise.
    assert_eq!(
        pages.ask("POST", "/services/backup/on", &key, &yes).status,
        303
    );
    assert_eq!(consents().as_array().unwrap().len(), 1);
    assert_eq!(pages.ask("POST", "/backups/run", &key, "").status, 303);
    person.run(["backup", "run", "--all"]).must(0);
    let id = consents()[0]["id"].as_str().unwrap().to_owned();
    let receipt = pages.ask("GET", &format!("/consent/receipt?id={id}"), &key, "");
    assert!(
        receipt.headers["content-disposition"].starts_with("attachment"),
        "{}",
        receipt.body
    );
    // Only what was named is switched off.
    let off = |form: &str| {
        let answer = pages.ask("POST", "/services/backup/off", &key, form);
        (answer.status, consents()[0]["state"].clone())
    };
    assert_eq!(off("stored=stays"), (422, "live".into()));
    let named = format!("stored=stays&set={}", hidden("set"));
    assert_eq!(off(&named), (303, "withdrawn".into()));
    assert_eq!(consents()[0]["state"], "withdrawn");
    assert_eq!(up.terminate(), 0);
}
