//! Images from a real registry: Debian's docker-registry on this machine,
//! filled by skopeo, open to all and behind a login.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use consign::digest::Digest;
use consign::layer::DebSource as _;
use consign::layer::source::deb::Network;
use consign::layer::source::oci::reference::Reference;
use consign::layer::source::oci::{Blobs, find_manifest};
use consign::layer::source::remote::Logins;
use consign::layer::spec::ImageOrigin;

use super::foreign::{Elsewhere, image, make, oci, skopeo};
use crate::support::{program, temp_folder};

/// `bob` with the password `s3cr3t-canary`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "bob:$2b$05$x7XOQAzl83nzbgwsnvD25eRU3nixGnlX/5etNOVj/ZEKYm5wUioE.\n";
const PASSWORD: &str = "s3cr3t-canary";

/// A registry on a port of its own; it ends with the value.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Registry {
    /// Starts one that keeps its files in `folder`. `None`, said loudly,
    /// without the program.
    pub(crate) fn start(folder: &Path, auth: &str) -> Option<Self> {
        let mut command = program("docker-registry", "docker-registry")?;
        let config = folder.join("config.yml");
        let data = folder.join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{auth}",
            data.display()
        );
        std::fs::write(&config, text).expect("a temporary file");
        let mut child = command
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let stderr = child.stderr.take().expect("piped above");
        let mut lines = BufReader::new(stderr);
        let mut said = String::new();
        let host = loop {
            let mut line = String::new();
            let count = lines.read_line(&mut line).expect("the registry speaks");
            assert!(count > 0, "the registry has ended: {said}");
            said.push_str(&line);
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(['"', ' ', '\n', ',']).unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
        };
        // What it says from here on must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Some(Self { child, host })
    }

    pub(crate) fn behind_a_login(folder: &Path) -> Option<Self> {
        let file = folder.join("htpasswd");
        std::fs::write(&file, HTPASSWD).expect("a temporary file");
        let auth = format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            file.display()
        );
        Self::start(folder, &auth)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("it can be ended");
        self.child.wait().expect("it ends");
    }
}

fn reference(registry: &Registry, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", registry.host)).expect("a reference")
}

#[test]
fn an_image_of_a_registry_is_the_layer_that_its_folder_is() {
    let folder = temp_folder();
    let Some(registry) = Registry::start(folder.path(), "") else {
        return;
    };
    let Some(layout) = image(folder.path()) else {
        return;
    };
    let to = format!("docker://{}/team/app:1", registry.host);
    if skopeo(
        folder.path(),
        "oci:img:app",
        &to,
        &["--dest-tls-verify=false"],
    )
    .is_none()
    {
        return;
    }
    let local = Elsewhere::new(&folder.path().join("local"));
    let manifest = find_manifest(&Blobs::Folder(layout.clone()), None).expect("an image");
    let expected = make(&local, &oci(ImageOrigin::Folder(layout), manifest)).expect("a layer");

    let mut source = Elsewhere::new(&folder.path().join("cache"));
    let by_tag = reference(&registry, "team/app:1");
    let remote = source.remote().expect("a way there");
    let found = remote.resolve(&by_tag).expect("it is there");
    let by_digest = reference(&registry, &format!("team/app@{found}"));
    assert_eq!(remote.resolve(&by_digest).expect("it is there"), found);
    drop(remote);
    let from_registry = oci(ImageOrigin::Registry(by_tag.repository.clone()), found);
    let layer = make(&source, &from_registry).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(layer.diff_id, expected.diff_id);

    // Once fetched, no network is needed, not even for another layer of it.
    source.network = Network::Offline;
    std::fs::remove_dir_all(source.cache.join("layers")).expect("the records");
    let layer = make(&source, &from_registry).expect("from the cache");
    assert_eq!(layer.diff_id, expected.diff_id);
    source.cache = folder.path().join("empty");
    let error = make(&source, &from_registry).expect_err("nothing is there");
    assert_eq!(error.slug(), "remote-offline");
}

#[test]
fn what_a_registry_does_not_have_is_named() {
    let folder = temp_folder();
    let Some(registry) = Registry::start(folder.path(), "") else {
        return;
    };
    let source = Elsewhere::new(&folder.path().join("cache"));
    let remote = source.remote().expect("a way there");
    let error = remote
        .resolve(&reference(&registry, "team/none:1"))
        .expect_err("it is not there");
    assert_eq!(error.slug(), "remote-not-found");
    assert_eq!(
        error.to_string(),
        format!("`{}/team/none:1` does not exist", registry.host)
    );
}

#[test]
fn a_blob_that_the_registry_has_damaged_is_refused_and_not_kept() {
    let folder = temp_folder();
    let Some(registry) = Registry::start(folder.path(), "") else {
        return;
    };
    if image(folder.path()).is_none() {
        return;
    }
    let to = format!("docker://{}/app:1", registry.host);
    if skopeo(
        folder.path(),
        "oci:img:app",
        &to,
        &["--dest-tls-verify=false"],
    )
    .is_none()
    {
        return;
    }
    let source = Elsewhere::new(&folder.path().join("cache"));
    let name = reference(&registry, "app:1");
    let manifest = source
        .remote()
        .and_then(|remote| Ok(remote.resolve(&name)?))
        .expect("it is there");
    // Every blob of the registry but the manifest gets one other bit.
    let blobs = folder.path().join("data/docker/registry/v2/blobs/sha256");
    let mut damaged = 0;
    for group in consign::tree::list_folder(&blobs).expect("groups") {
        for blob in consign::tree::list_folder(&group.path).expect("blobs") {
            if blob.name.to_string_lossy() == manifest.hex() {
                continue;
            }
            let data = blob.path.join("data");
            let mut bytes = std::fs::read(&data).expect("a blob");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&data, bytes).expect("write");
            damaged += 1;
        }
    }
    assert!(damaged > 1);
    let error = make(
        &source,
        &oci(ImageOrigin::Registry(name.repository), manifest),
    )
    .expect_err("damaged");
    assert_eq!(error.slug(), "remote-digest", "{error:?}");
    assert_eq!(error.class().code(), 3);
    let kept = consign::tree::list_folder(&source.cache.join("oci/blobs/sha256")).expect("blobs");
    let digest_of = |path: &Path| Digest::of(&std::fs::read(path).expect("a blob")).hex();
    for blob in &kept {
        assert_eq!(digest_of(&blob.path), blob.name.to_string_lossy());
    }
}

#[test]
fn a_login_is_shown_to_the_registry_and_to_nobody_else() {
    let folder = temp_folder();
    let Some(registry) = Registry::behind_a_login(folder.path()) else {
        return;
    };
    if image(folder.path()).is_none() {
        return;
    }
    let to = format!("docker://{}/app:1", registry.host);
    let more = ["--dest-tls-verify=false", "--dest-creds"];
    let login = format!("bob:{PASSWORD}");
    let more = [&more[..], &[&login]].concat();
    if skopeo(folder.path(), "oci:img:app", &to, &more).is_none() {
        return;
    }
    let name = reference(&registry, "app:1");
    let mut source = Elsewhere::new(&folder.path().join("cache"));
    let resolve = |source: &Elsewhere| {
        let remote = source.remote().expect("a way there");
        remote.resolve(&name)
    };
    let error = resolve(&source).expect_err("a stranger");
    assert_eq!(error.slug(), "registry-login");
    assert_eq!(
        error.to_string(),
        format!(
            "registry `{}` does not let a stranger read `app`",
            registry.host
        )
    );
    assert!(error.hint().expect("a hint").contains("docker login"));

    let logins = |password: &str| {
        let text = format!(
            r#"{{"auths":{{"{}":{{"username":"bob","password":"{password}"}}}}}}"#,
            registry.host
        );
        Logins::parse(&text).expect("logins")
    };
    source.logins = logins("wrong-canary");
    let error = resolve(&source).expect_err("another password");
    assert!(error.to_string().contains("does not let this login read"));
    assert!(!format!("{error:?} {source:?}").contains("canary"));

    source.logins = logins(PASSWORD);
    assert!(resolve(&source).is_ok());
}
