//! Keys that packages make when they are installed, made by each machine instead.
//!
//! The clean-image rules take such keys out of the image. Programs that want
//! them would then not start, so that a unit has the package's own tool make
//! them before any service, once.

use super::error::BootError;
use super::files::{path, symlink, text_file};
use crate::tree::FileTree;
use crate::units::Timestamp;

/// A key, and how a machine makes it.
struct Maker {
    /// Names the unit: `consign-make-NAME.service`.
    name: &'static str,
    /// The tool, in the tree.
    tool: &'static str,
    /// A folder without which the key is nobody's.
    folder: &'static str,
    /// The key.
    key: &'static str,
    command: &'static str,
}

const MAKERS: [Maker; 2] = [
    Maker {
        name: "snakeoil-key",
        tool: "usr/sbin/make-ssl-cert",
        folder: "etc/ssl/private",
        key: "/etc/ssl/private/ssl-cert-snakeoil.key",
        command: "/usr/sbin/make-ssl-cert generate-default-snakeoil --force-overwrite",
    },
    Maker {
        name: "rndc-key",
        tool: "usr/sbin/rndc-confgen",
        folder: "etc/bind",
        key: "/etc/bind/rndc.key",
        command: "/usr/sbin/rndc-confgen -a -A hmac-sha256 -b 256 -u bind",
    },
];

const UNITS: &str = "usr/lib/systemd/system";

/// Adds a unit for each key whose tool is in the tree.
pub(super) fn make_at_boot(tree: &mut FileTree, time: Timestamp) -> Result<(), BootError> {
    for maker in &MAKERS {
        if tree.at(maker.tool).is_none() || tree.at(maker.folder).is_none() {
            continue;
        }
        let Maker {
            name, key, command, ..
        } = maker;
        let unit = format!(
            "[Unit]\nDescription=This machine's own {key}\nDefaultDependencies=no\n\
             After=local-fs.target systemd-tmpfiles-setup.service\n\
             Before=basic.target shutdown.target\nConflicts=shutdown.target\n\
             ConditionPathExists=!{key}\n\n\
             [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={command}\n"
        );
        let file = format!("consign-make-{name}.service");
        tree.insert(path(&format!("{UNITS}/{file}")), text_file(unit, time))?;
        tree.insert(
            path(&format!("{UNITS}/basic.target.wants/{file}")),
            symlink(&format!("../{file}"), time),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Node};

    #[test]
    fn only_keys_whose_tool_is_there_are_made() {
        let mut tree = FileTree::new();
        make_at_boot(&mut tree, Timestamp::default()).expect("nothing to do");
        assert!(tree.is_empty());
        for name in ["usr/sbin/make-ssl-cert", "usr/sbin/rndc-confgen"] {
            let node = Node::file(0o755, Content::from_bytes(*b"x"));
            tree.insert(path(name), node).expect("insert");
        }
        tree.insert(path("etc/ssl/private"), Node::directory(0o710))
            .expect("insert");
        make_at_boot(&mut tree, Timestamp::default()).expect("units");
        let unit = tree
            .at("usr/lib/systemd/system/consign-make-snakeoil-key.service")
            .and_then(Node::content)
            .expect("a unit");
        let text = unit.read_all(4096).expect("text");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("\nConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key\n"));
        assert!(
            tree.at("usr/lib/systemd/system/basic.target.wants/consign-make-snakeoil-key.service")
                .is_some()
        );
        assert!(
            tree.at("usr/lib/systemd/system/consign-make-rndc-key.service")
                .is_none(),
            "there is no /etc/bind"
        );
    }
}
