//! What the agent will refuse of its vendor's for a missing or wrong signature,
//! told before an image is built with it.

use consign_schema::hook::{Hook, Program};
use consign_schema::{Policy, Role, check_policy as judge};

use super::agent::parse;
use super::error::BootError;
use super::files::path;
use crate::sign::vendor;
use crate::tree::{FileTree, Node, TreePath};

const POLICY: &str = "usr/lib/consign/policy.toml";
/// The vendor's public keys, one a line.
const VENDOR: &str = "usr/lib/consign/vendor.pub";
/// What the signature of a policy is for.
const POLICY_PURPOSE: &str = "consign-policy";
/// What the signature of a hook is for.
const HOOK_PURPOSE: &str = "consign-hook";
const PUPPET: &str = "usr/bin/puppet";
/// A file that is signed is never longer, in bytes.
const MAX_SIGNED: u64 = 4 << 20;

/// The vendor's policy, which means keys and roles that there are, and is signed
/// where the image has the vendor's key; the default where there is none.
pub(super) fn read_policy(tree: &FileTree, roles: &[Role]) -> Result<Policy, BootError> {
    let file = path(POLICY);
    if tree.get(&file).is_none() {
        return Ok(Policy::default());
    }
    let roles: Vec<&Role> = roles.iter().collect();
    let policy = parse(tree, &file, |text| judge(text, &roles))?;
    if tree.at(VENDOR).is_some() {
        check_signature(tree, &file, POLICY_PURPOSE)?;
    }
    Ok(policy)
}

/// A hook of the image is there, can run and is signed.
pub(super) fn check_hook(tree: &FileTree, folder: &TreePath, hook: &Hook) -> Result<(), BootError> {
    let file = path(&format!("{folder}/{}", hook.file()));
    let node = tree.get(&file).filter(|node| node.content().is_some());
    let (is_there, needs) = match hook.program {
        Program::File(_) => {
            let can_run = |node: &Node| node.meta.mode & 0o111 != 0;
            (node.is_some_and(can_run), "no program with its execute bit")
        }
        Program::Puppet(_) if tree.at(PUPPET).is_none() => (false, "no /usr/bin/puppet for it"),
        Program::Puppet(_) => (node.is_some(), "no file"),
    };
    if !is_there {
        return Err(BootError::NoHook { path: file, needs });
    }
    check_signature(tree, &file, HOOK_PURPOSE)
}

/// Whether the vendor signed `file`, by the signature beside it.
fn check_signature(
    tree: &FileTree,
    file: &TreePath,
    purpose: &'static str,
) -> Result<(), BootError> {
    let read = |file: &TreePath| -> Result<Option<Vec<u8>>, BootError> {
        let content = tree.get(file).and_then(Node::content);
        let bytes = content.map(|content| content.read_all(MAX_SIGNED));
        bytes.transpose().map_err(|source| BootError::Read {
            path: file.clone(),
            source,
        })
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let keys = read(&path(VENDOR))?.map(text).unwrap_or_default();
    let signature = read(&path(&format!("{file}.sig")))?.map(text);
    let message = read(file)?.unwrap_or_default();
    vendor::check(&keys, purpose, &message, signature.as_deref()).map_err(|source| {
        BootError::VendorSignature {
            path: file.clone(),
            purpose,
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::agent::tests::{ROLE, debian, placed};
    use super::super::files::text_file;
    use super::*;
    use crate::sign::{SecretKey, Signer, sshsig};
    use crate::units::Timestamp;

    #[test]
    fn a_policy_that_the_agent_would_refuse_stops_the_build() {
        const TEXT: &str = "schema = 1\nroles = [\"web\"]\n";
        let signer = |seed| Signer::File(SecretKey::from_seed(&[seed; 32]));
        let keys = signer(1).public().to_openssh("vendor");
        let with = |files: &[(&str, &str)]| {
            let mut tree = debian();
            for (name, text) in files {
                let node = text_file(*text, Timestamp::default());
                tree.insert(path(name), node).expect("insert");
            }
            placed(tree).map(|_| ())
        };
        let sign = |seed, text: &str| {
            sshsig::sign(&signer(seed), POLICY_PURPOSE, text.as_bytes()).expect("signed")
        };
        let signature = format!("{POLICY}.sig");
        with(&[(POLICY, TEXT)]).expect("no key, no need");
        let good = sign(1, TEXT);
        with(&[(VENDOR, &keys), (POLICY, TEXT), (&signature, &good)]).expect("signed");
        let cases = [None, Some(sign(2, TEXT)), Some(sign(1, "schema = 1\n"))];
        for (bad, part) in cases
            .iter()
            .zip(["not signed", "no key of the vendor", "count"])
        {
            let mut files = vec![(VENDOR, keys.as_str()), (POLICY, TEXT)];
            files.extend(bad.as_deref().map(|bad| (signature.as_str(), bad)));
            let error = with(&files).expect_err("refused");
            assert_eq!(error.slug(), "boot-vendor-signature");
            let why = std::error::Error::source(&error)
                .expect("a reason")
                .to_string();
            assert!(why.contains(part), "{why}");
            let hint = error.hint().expect("a hint");
            assert!(
                hint.contains("-n consign-policy") && hint.contains("policy.toml"),
                "{hint}"
            );
        }
    }

    #[test]
    fn a_hook_that_the_agent_would_not_run_stops_the_build() {
        let signer = Signer::File(SecretKey::from_seed(&[1; 32]));
        let keys = signer.public().to_openssh("vendor");
        let text = "#!/bin/true\n";
        let good = sshsig::sign(&signer, HOOK_PURPOSE, text.as_bytes()).expect("signed");
        let with = |hook: &str, mode: u16, signature: Option<&str>, more: &[&str]| {
            let mut tree = debian();
            let mut put = |name: &str, text: &str, mode: u16| {
                let mut node = text_file(text, Timestamp::default());
                node.meta.mode = mode;
                tree.insert(path(name), node).expect("insert");
            };
            let role = format!("{ROLE}[[hook]]\nwhen = \"verify\"\n{hook}\n");
            put("usr/lib/consign/roles/web/role.toml", &role, 0o644);
            put("usr/lib/consign/roles/web/check", text, mode);
            put(VENDOR, &keys, 0o644);
            if let Some(signature) = signature {
                put("usr/lib/consign/roles/web/check.sig", signature, 0o644);
            }
            for name in more {
                put(name, "", 0o755);
            }
            match placed(tree) {
                Ok(_) => "",
                Err(error) => error.slug(),
            }
        };
        let (run, puppet) = ("run = \"check\"", "puppet = \"check\"");
        assert_eq!(with(run, 0o755, Some(&good), &[]), "");
        assert_eq!(with(puppet, 0o644, Some(&good), &[PUPPET]), "");
        assert_eq!(with(puppet, 0o644, Some(&good), &[]), "boot-no-hook");
        assert_eq!(with(run, 0o644, Some(&good), &[]), "boot-no-hook");
        assert_eq!(
            with("run = \"chek\"", 0o755, Some(&good), &[]),
            "boot-no-hook"
        );
        assert_eq!(with(run, 0o755, None, &[]), "boot-vendor-signature");
        // Of a bundle nothing is known here.
        assert_eq!(with("run = \"x\"\nbundle = \"app\"", 0o644, None, &[]), "");
    }
}
