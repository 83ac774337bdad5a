//! The first-boot agent in its place: the program, its units, the fence.
//!
//! Units that a role names never start on their own: whatever enabled them is
//! taken away, `appliance-ready.target` wants them instead, and a drop-in
//! lets them run only when the agent has left its stamp for them.

use consign_schema::{Problem, Role, Template, decode, json_schema, template};

use super::error::BootError;
use super::files::{path, symlink, text_file};
use crate::tree::{Content, FileTree, Node, NodeKind, TreePath};
use crate::units::Timestamp;

const PROGRAM: &str = "usr/lib/consign/consign-firstboot";
const COMMAND: &str = "usr/bin/appliance";
const ROLES: &str = "usr/lib/consign/roles";
/// What `appliance schema` prints.
const SCHEMA: &str = "usr/lib/consign/site.schema.json";
const VENDOR_UNITS: &str = "usr/lib/systemd/system";
const ADMIN_UNITS: &str = "etc/systemd/system";
const READY_TARGET: &str = "appliance-ready.target";
/// The agent's stamps; what the drop-ins ask for.
const SERVICE_STAMPS: &str = "/run/consign/services";
const CONFIGURED_STAMP: &str = "/run/consign/configured";
const DROP_IN: &str = "10-appliance.conf";

/// A unit of the agent: name, text, and the target that wants it.
type Unit = (&'static str, &'static str, Option<&'static str>);

const UNITS: [Unit; 3] = [
    (
        "appliance-config.service",
        include_str!("../../firstboot/units/appliance-config.service"),
        Some("sysinit.target"),
    ),
    (
        READY_TARGET,
        include_str!("../../firstboot/units/appliance-ready.target"),
        Some("multi-user.target"),
    ),
    (
        "appliance-verify.service",
        include_str!("../../firstboot/units/appliance-verify.service"),
        Some("multi-user.target"),
    ),
];

/// Units for roots without systemd-resolved.
const RESOLVER_UNITS: [Unit; 2] = [
    (
        "appliance-resolv.path",
        include_str!("../../firstboot/units/appliance-resolv.path"),
        Some("multi-user.target"),
    ),
    (
        "appliance-resolv.service",
        include_str!("../../firstboot/units/appliance-resolv.service"),
        None,
    ),
];

/// The agent's page above the login prompts.
const ISSUE: &str = "etc/issue.d/50-consign.issue";
const SSHD: &str = "usr/sbin/sshd";
const SSHD_DROP_IN: &str = "etc/ssh/sshd_config.d/10-consign.conf";
const NETWORKD: &str = "usr/lib/systemd/systemd-networkd";
const RESOLVED: &str = "usr/lib/systemd/systemd-resolved";

/// Links that `systemctl enable` would make for what every appliance needs.
/// Source: the `[Install]` sections of systemd 252 and openssh-server 9.2.
const NETWORKD_LINKS: [(&str, &str); 3] = [
    (
        "multi-user.target.wants/systemd-networkd.service",
        "systemd-networkd.service",
    ),
    (
        "sockets.target.wants/systemd-networkd.socket",
        "systemd-networkd.socket",
    ),
    (
        "dbus-org.freedesktop.network1.service",
        "systemd-networkd.service",
    ),
];
const SSHD_LINKS: [(&str, &str); 2] = [
    ("multi-user.target.wants/ssh.service", "ssh.service"),
    ("sshd.service", "ssh.service"),
];

/// Puts the agent into `tree`: the program, the operator's command, its
/// units, the fence around the roles' units, sshd's and the resolver's files.
///
/// # Errors
///
/// [`BootError`] when the tree has no systemd-networkd, or a role or the
/// vendor's policy is wrong.
pub(super) fn place(
    tree: &mut FileTree,
    agent: &Content,
    time: Timestamp,
) -> Result<(), BootError> {
    if tree.at(NETWORKD).is_none() {
        return Err(BootError::Missing { path: NETWORKD });
    }
    let roles = read_roles(tree)?;
    let policy = super::vendor_files::read_policy(tree, &roles)?;
    let mut program = Node::file(0o755, agent.clone());
    program.meta.mtime = time;
    tree.insert(path(PROGRAM), program)?;
    tree.insert(
        path(COMMAND),
        symlink("../lib/consign/consign-firstboot", time),
    )?;
    for unit in &UNITS {
        put_unit(tree, unit, time)?;
    }
    tree.insert(path(ISSUE), symlink("/run/consign/issue", time))?;
    enable(tree, &NETWORKD_LINKS, time)?;
    if tree.at(SSHD).is_some() {
        let text = include_str!("../../firstboot/units/sshd.conf");
        tree.insert(path(SSHD_DROP_IN), text_file(text, time))?;
        enable(tree, &SSHD_LINKS, time)?;
    }
    if tree.at(RESOLVED).is_none() {
        for unit in &RESOLVER_UNITS {
            put_unit(tree, unit, time)?;
        }
        tree.insert(
            path("etc/resolv.conf"),
            symlink("../run/consign/resolv.conf", time),
        )?;
    }
    let mut sorted: Vec<&Role> = roles.iter().collect();
    sorted.sort_by(|one, two| one.name.cmp(&two.name));
    let schema = format!("{:#}\n", json_schema(&sorted, &policy));
    tree.insert(path(SCHEMA), text_file(schema, time))?;
    fence(tree, &roles, time)
}

fn put_unit(tree: &mut FileTree, unit: &Unit, time: Timestamp) -> Result<(), BootError> {
    let (name, text, wanted_by) = unit;
    tree.insert(
        path(&format!("{VENDOR_UNITS}/{name}")),
        text_file(*text, time),
    )?;
    if let Some(target) = wanted_by {
        let link = format!("{VENDOR_UNITS}/{target}.wants/{name}");
        tree.insert(path(&link), symlink(&format!("../{name}"), time))?;
    }
    Ok(())
}

fn enable(tree: &mut FileTree, links: &[(&str, &str)], time: Timestamp) -> Result<(), BootError> {
    for (link, unit) in links {
        let target = format!("/{VENDOR_UNITS}/{unit}");
        tree.insert(
            path(&format!("{ADMIN_UNITS}/{link}")),
            symlink(&target, time),
        )?;
    }
    Ok(())
}

/// The roles of the tree, each with its templates in place.
fn read_roles(tree: &FileTree) -> Result<Vec<Role>, BootError> {
    let folder = path(ROLES);
    let files: Vec<TreePath> = tree
        .subtree(&folder)
        .filter(|(file, _, node)| file.name() == Some(b"role.toml") && node.content().is_some())
        .map(|(file, _, _)| file.clone())
        .collect();
    let mut roles: Vec<Role> = Vec::new();
    for file in files {
        let role = parse(tree, &file, Role::parse)?;
        let own = file.parent().unwrap_or_default();
        let is_named =
            own.parent().as_ref() == Some(&folder) && own.name() == Some(role.name.as_bytes());
        if !is_named {
            return Err(BootError::RoleFolder {
                path: file,
                role: role.name,
            });
        }
        for template in &role.templates {
            let source = own.join(template.source.as_bytes());
            let node = source.as_ref().and_then(|source| tree.get(source));
            let Some(content) = node.and_then(Node::content) else {
                return Err(BootError::NoTemplate {
                    role: role.name,
                    template: template.source.clone(),
                });
            };
            check_template(&role, template, content)?;
        }
        for hook in role.hooks.iter().filter(|hook| hook.bundle.is_none()) {
            super::vendor_files::check_hook(tree, &own, hook)?;
        }
        for unit in &role.services {
            if !has_unit(tree, unit) {
                return Err(BootError::NoRoleUnit {
                    role: role.name,
                    unit: unit.clone(),
                });
            }
        }
        roles.push(role);
    }
    Ok(roles)
}

/// A template that the agent could not fill in is none for an image.
fn check_template(role: &Role, template: &Template, content: &Content) -> Result<(), BootError> {
    let wrong = |reason| BootError::Template {
        role: role.name.clone(),
        template: template.source.clone(),
        reason,
    };
    let bytes = content.read_all(consign_schema::MAX_SIZE as u64 + 1);
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    let source = String::from_utf8(bytes).map_err(|_| wrong("it is no UTF-8".to_owned()))?;
    template::check_template(role, template.escape, &source).map_err(wrong)
}

/// Reads a file of the vendor's with the agent's own rules.
pub(super) fn parse<T>(
    tree: &FileTree,
    file: &TreePath,
    parse: impl FnOnce(&str) -> Result<T, Vec<Problem>>,
) -> Result<T, BootError> {
    let wrong = |problems: Vec<Problem>| BootError::VendorFile {
        path: file.clone(),
        problems: problems
            .iter()
            .flat_map(|problem| problem.lines(&file.to_string()))
            .collect(),
    };
    let limit = consign_schema::MAX_SIZE as u64 + 1;
    let bytes = tree
        .get(file)
        .and_then(Node::content)
        .ok_or_else(|| wrong(Vec::new()))?
        .read_all(limit)
        .map_err(|source| BootError::Read {
            path: file.clone(),
            source,
        })?;
    decode(&bytes).and_then(parse).map_err(wrong)
}

/// Whether systemd will find the unit, or its template.
fn has_unit(tree: &FileTree, unit: &str) -> bool {
    let template = unit.split_once('@').and_then(|(name, rest)| {
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{name}@.{kind}"))
    });
    let names = [Some(unit.to_owned()), template];
    names.iter().flatten().any(|name| {
        [VENDOR_UNITS, ADMIN_UNITS]
            .iter()
            .any(|folder| tree.at(&format!("{folder}/{name}")).is_some())
    })
}

/// Moves the roles' units behind the fence, and keeps those there that a
/// layer put there itself.
fn fence(tree: &mut FileTree, roles: &[Role], time: Timestamp) -> Result<(), BootError> {
    let mut units: Vec<&str> = roles
        .iter()
        .flat_map(|role| role.services.iter().map(String::as_str))
        .collect();
    units.sort_unstable();
    units.dedup();
    let others: Vec<String> = wanted_by_ready(tree)
        .into_iter()
        .filter(|unit| !units.contains(&unit.as_str()))
        .collect();
    for unit in &units {
        disable(tree, unit);
        let link = format!("{VENDOR_UNITS}/{READY_TARGET}.wants/{unit}");
        let target = unit
            .split_once('@')
            .map_or((*unit).to_owned(), |(name, rest)| {
                let kind = rest.rsplit_once('.').map_or("service", |(_, kind)| kind);
                format!("{name}@.{kind}")
            });
        tree.insert(path(&link), symlink(&format!("../{target}"), time))?;
        put_drop_in(tree, unit, &format!("{SERVICE_STAMPS}/{unit}"), time)?;
    }
    for unit in &others {
        put_drop_in(tree, unit, CONFIGURED_STAMP, time)?;
    }
    Ok(())
}

fn put_drop_in(
    tree: &mut FileTree,
    unit: &str,
    stamp: &str,
    time: Timestamp,
) -> Result<(), BootError> {
    let text = format!(
        "# The fence: it runs only on a machine that is configured for it.\n\
         [Unit]\nAfter=appliance-config.service\nConditionPathExists={stamp}\n"
    );
    let file = format!("{VENDOR_UNITS}/{unit}.d/{DROP_IN}");
    tree.insert(path(&file), text_file(text, time))?;
    Ok(())
}

/// Units that layers themselves put behind the fence.
fn wanted_by_ready(tree: &FileTree) -> Vec<String> {
    let mut units = Vec::new();
    for folder in [VENDOR_UNITS, ADMIN_UNITS] {
        for kind in ["wants", "requires"] {
            let folder = path(&format!("{folder}/{READY_TARGET}.{kind}"));
            let links = tree
                .subtree(&folder)
                .filter(|(link, _, _)| **link != folder);
            units.extend(
                links.filter_map(|(link, _, _)| String::from_utf8(link.name()?.to_vec()).ok()),
            );
        }
    }
    units.sort_unstable();
    units.dedup();
    units
}

/// Takes away every link that would start the unit with another one.
fn disable(tree: &mut FileTree, unit: &str) {
    for folder in [VENDOR_UNITS, ADMIN_UNITS] {
        let links: Vec<TreePath> = tree
            .subtree(&path(folder))
            .filter(|(link, _, node)| {
                let parent = link.parent().unwrap_or_default();
                let above = parent.name().unwrap_or_default();
                let pulls = above.ends_with(b".wants") || above.ends_with(b".requires");
                matches!(node.kind, NodeKind::Symlink(_))
                    && pulls
                    && link.name() == Some(unit.as_bytes())
            })
            .map(|(link, _, _)| link.clone())
            .collect();
        for link in links {
            tree.remove(&link);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::boot) const ROLE: &str = "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\", \"job@web.timer\"]\n\
        [[template]]\nsource = \"t.j2\"\ntarget = \"/etc/t\"\ntype = \"text\"\n";

    fn tree_with(files: &[(&str, &str)]) -> FileTree {
        let mut tree = FileTree::new();
        for (name, text) in files {
            tree.insert(path(name), text_file(*text, Timestamp::default()))
                .expect("insert");
        }
        tree
    }

    pub(in crate::boot) fn debian() -> FileTree {
        let mut tree = tree_with(&[
            (NETWORKD, ""),
            (SSHD, ""),
            ("usr/lib/systemd/system/nginx.service", ""),
            ("usr/lib/systemd/system/job@.timer", ""),
            ("usr/lib/systemd/system/own.service", ""),
            ("usr/lib/consign/roles/web/role.toml", ROLE),
            ("usr/lib/consign/roles/web/t.j2", ""),
        ]);
        for link in [
            "multi-user.target.wants/nginx.service",
            "appliance-ready.target.wants/own.service",
        ] {
            let node = symlink("/lib/systemd/system/x.service", Timestamp::default());
            tree.insert(path(&format!("etc/systemd/system/{link}")), node)
                .expect("insert");
        }
        tree
    }

    pub(in crate::boot) fn placed(mut tree: FileTree) -> Result<FileTree, BootError> {
        let agent = Content::from_bytes(*b"agent");
        place(&mut tree, &agent, Timestamp::from_seconds(7))?;
        Ok(tree)
    }

    fn text(tree: &FileTree, file: &str) -> String {
        let content = tree.at(file).and_then(Node::content).expect(file);
        String::from_utf8(content.read_all(1 << 20).expect(file)).expect(file)
    }

    fn target(tree: &FileTree, link: &str) -> String {
        match tree.at(link).map(|node| &node.kind) {
            Some(NodeKind::Symlink(target)) => String::from_utf8_lossy(target).into_owned(),
            other => panic!("{link}: {other:?}"),
        }
    }

    #[test]
    fn the_agent_is_there_and_starts_with_the_system() {
        let tree = placed(debian()).expect("placed");
        let program = tree.at(PROGRAM).expect("the program");
        assert_eq!(
            (program.meta.mode, program.meta.mtime),
            (0o755, Timestamp::from_seconds(7))
        );
        assert_eq!(target(&tree, COMMAND), "../lib/consign/consign-firstboot");
        for unit in [
            "sysinit.target.wants/appliance-config.service",
            "multi-user.target.wants/appliance-verify.service",
            "multi-user.target.wants/appliance-ready.target",
        ] {
            let link = format!("{VENDOR_UNITS}/{unit}");
            let (_, name) = unit.split_once('/').expect("a link");
            assert_eq!(target(&tree, &link), format!("../{name}"));
        }
        let schema: serde_json::Value =
            serde_json::from_str(&text(&tree, SCHEMA)).expect("a JSON Schema");
        assert_eq!(
            schema["properties"]["role"]["properties"]["name"]["enum"][0],
            "web"
        );
        assert!(text(&tree, SSHD_DROP_IN).contains("/var/lib/consign/ssh/ssh_host_ed25519_key"));
        assert_eq!(
            target(
                &tree,
                "etc/systemd/system/multi-user.target.wants/ssh.service"
            ),
            "/usr/lib/systemd/system/ssh.service"
        );
        assert_eq!(
            target(&tree, "etc/resolv.conf"),
            "../run/consign/resolv.conf"
        );
    }

    #[test]
    fn units_of_roles_start_only_behind_the_fence() {
        let tree = placed(debian()).expect("placed");
        assert!(
            tree.at("etc/systemd/system/multi-user.target.wants/nginx.service")
                .is_none()
        );
        let wants = format!("{VENDOR_UNITS}/{READY_TARGET}.wants");
        assert_eq!(
            target(&tree, &format!("{wants}/nginx.service")),
            "../nginx.service"
        );
        assert_eq!(
            target(&tree, &format!("{wants}/job@web.timer")),
            "../job@.timer"
        );
        let condition = |unit: &str| {
            let text = text(&tree, &format!("{VENDOR_UNITS}/{unit}.d/{DROP_IN}"));
            text.lines().last().map(str::to_owned)
        };
        assert_eq!(
            condition("nginx.service").as_deref(),
            Some("ConditionPathExists=/run/consign/services/nginx.service")
        );
        assert_eq!(
            condition("own.service").as_deref(),
            Some("ConditionPathExists=/run/consign/configured")
        );
    }

    #[test]
    fn a_root_with_systemd_resolved_keeps_its_resolver() {
        let mut tree = debian();
        tree.insert(path(RESOLVED), text_file("", Timestamp::default()))
            .expect("insert");
        let tree = placed(tree).expect("placed");
        assert!(tree.at("etc/resolv.conf").is_none());
        assert!(
            tree.at("usr/lib/systemd/system/appliance-resolv.path")
                .is_none()
        );
    }

    #[test]
    fn what_is_wrong_with_the_vendors_files_stops_the_build() {
        let cases = [
            (
                "usr/lib/consign/roles/web/role.toml",
                Some("schema = 1\nname = \"web\"\n"),
                "boot-vendor-file",
            ),
            (
                "usr/lib/consign/roles/web/role.toml",
                Some("schema = 1\nname = \"other\"\ndescription = \"x\"\n"),
                "boot-role-folder",
            ),
            ("usr/lib/consign/roles/web/t.j2", None, "boot-no-template"),
            (
                "usr/lib/systemd/system/nginx.service",
                None,
                "boot-no-role-unit",
            ),
            (
                "usr/lib/consign/policy.toml",
                Some("schema = 1\nforbid = []\n"),
                "boot-vendor-file",
            ),
            (
                "usr/lib/consign/policy.toml",
                Some("schema = 1\nforbidden = [\"sytem.hostname\"]\n"),
                "boot-vendor-file",
            ),
            (
                "usr/lib/consign/policy.toml",
                Some("schema = 1\nroles = [\"webb\"]\n"),
                "boot-vendor-file",
            ),
            (
                "usr/lib/consign/roles/web/t.j2",
                Some("{{ app.nosuch }}"),
                "boot-template",
            ),
            (NETWORKD, None, "boot-missing"),
        ];
        for (file, content, slug) in cases {
            let mut tree = debian();
            tree.remove(&path(file));
            if let Some(content) = content {
                tree.insert(path(file), text_file(content, Timestamp::default()))
                    .expect("insert");
            }
            let error = placed(tree).expect_err(file);
            assert_eq!(error.slug(), slug, "{error}");
        }
    }
}
