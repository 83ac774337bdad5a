//! A registry that wants a token: docker-registry checks the signature of
//! each, a small server of the test's hands them out to who has a login.
#![expect(clippy::disallowed_methods, reason = "a token has a date")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use consign::digest::Digest;
use consign::layer::DebSource as _;
use consign::layer::source::oci::reference::Repository;
use consign::layer::source::remote::{Logins, RemoteError, Upload};

use super::foreign::Elsewhere;
use super::registry::Registry;
use crate::support::{must_run, program, temp_folder};

/// `Basic bob:s3cr3t-canary`.
const LOGIN: &str = "Basic Ym9iOnMzY3IzdC1jYW5hcnk=";

/// A key pair in `folder`; the certificate is what the registry trusts.
fn make_keys(folder: &Path) -> Option<()> {
    let mut openssl = program("openssl", "openssl")?;
    must_run(
        openssl
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj", "/CN=test", "-keyout", "key.pem", "-out", "cert.pem",
            ])
            .current_dir(folder),
    );
    Some(())
}

/// A token (RFC 7519) that allows everything in `app`, signed by openssl.
fn token(folder: &Path) -> String {
    let pem = std::fs::read_to_string(folder.join("cert.pem")).expect("a certificate");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{der}"]}}"#);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.expect("after 1970").as_secs();
    let payload = format!(
        r#"{{"iss":"test","sub":"bob","aud":"registry","jti":"1","nbf":{},"iat":{},"exp":{},
            "access":[{{"type":"repository","name":"app","actions":["pull","push"]}}]}}"#,
        now - 60,
        now - 60,
        now + 600
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    std::fs::write(folder.join("signed"), &signed).expect("a temporary file");
    let mut openssl = program("openssl", "openssl").expect("it made the keys");
    let signature = must_run(
        openssl
            .args(["dgst", "-sha256", "-sign", "key.pem", "signed"])
            .current_dir(folder),
    );
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.stdout))
}

/// Answers every request with a token, if it shows the login.
fn serve(listener: TcpListener, token: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            let mut has_login = false;
            for line in lines.by_ref() {
                let line = line.expect("a header");
                has_login |= line.eq_ignore_ascii_case(&format!("authorization: {LOGIN}"));
                if line.is_empty() {
                    break;
                }
            }
            let (status, body) = if has_login {
                ("200 OK", format!(r#"{{"token":"{token}"}}"#))
            } else {
                ("401 Unauthorized", String::new())
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).expect("an answer");
        }
    });
}

#[test]
fn a_token_is_fetched_for_who_has_a_login() {
    let folder = temp_folder();
    if make_keys(folder.path()).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = listener.local_addr().expect("an address");
    serve(listener, token(folder.path()));
    let auth = format!(
        "auth:\n  token:\n    realm: http://{place}/token\n    service: registry\n    \
         issuer: test\n    rootcertbundle: {}\n",
        folder.path().join("cert.pem").display()
    );
    let Some(registry) = Registry::start(folder.path(), &auth) else {
        return;
    };
    let repository = Repository::parse(&format!("{}/app", registry.host)).expect("a name");
    let blob = b"some bytes";
    let mut source = Elsewhere::new(&folder.path().join("cache"));
    let push = |source: &Elsewhere| -> Result<bool, RemoteError> {
        let remote = source.remote().expect("a way there");
        let registry = remote.registry(&repository);
        registry.push_blob(&Digest::of(blob), &Upload::Bytes(blob))
    };
    let error = push(&source).expect_err("a stranger");
    assert_eq!(error.slug(), "registry-login", "{error:?}");
    let plain = STANDARD.decode(LOGIN.trim_start_matches("Basic "));
    let plain = String::from_utf8(plain.expect("Base64")).expect("text");
    let (user, password) = plain.split_once(':').expect("a login");
    let text = format!(
        r#"{{"auths":{{"{}":{{"username":"{user}","password":"{password}"}}}}}}"#,
        registry.host
    );
    source.logins = Logins::parse(&text).expect("logins");
    assert!(push(&source).expect("a token, and a push"));
    assert!(!push(&source).expect("it is there"));
}
