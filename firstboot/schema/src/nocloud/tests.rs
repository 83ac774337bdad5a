//! Tests of the conversion: what becomes what, and what is refused where.

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

fn converted(texts: NoCloud<'_>) -> crate::SiteConfig {
    let text = convert_no_cloud(texts).unwrap_or_else(|error| panic!("{error:#?}"));
    check(&text, &[], &Policy::default()).unwrap_or_else(|error| panic!("{text}\n{error:#?}"))
}

#[test]
fn a_usual_medium_becomes_a_configuration() {
    let user_data = format!(
        "#cloud-config\nfqdn: web-1.example.org\nhostname: web-1\ntimezone: Europe/Berlin\n\
         users:\n  - name: ann\n    sudo: ALL=(ALL) NOPASSWD:ALL\n    ssh_authorized_keys:\n      - {KEY} ann\n\
         ssh_authorized_keys: [\"{KEY}\"]\nntp:\n  servers: [time.example.org]\n"
    );
    let site = converted(NoCloud {
        meta_data: "instance-id: iid_Local01\nlocal-hostname: other\n",
        user_data: &user_data,
        network_config: "version: 2\nethernets:\n  eth0:\n    match: {macaddress: '52:54:00:12:34:56'}\n    addresses: [10.1.2.10/24]\n    routes:\n      - to: default\n        via: 10.1.2.1\n    nameservers:\n      addresses: [10.1.2.1]\n      search: [example.org]\n",
    });
    assert_eq!(site.id.as_str(), "iid-local01");
    let name = site.system.hostname.as_ref().map(crate::HostName::as_str);
    assert_eq!(name, Some("web-1.example.org"));
    assert_eq!(site.users.len(), 2);
    assert!(site.users.iter().all(|user| user.sudo));
    assert_eq!(site.nics[0].link.gateways.len(), 1);
    assert_eq!(site.dns.search.len(), 1);
}

#[test]
fn version_1_of_the_network_is_converted() {
    let site = converted(NoCloud {
        network_config: "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    mac_address: '52:54:00:12:34:56'\n    mtu: 1400\n    subnets:\n      - type: static\n        address: 10.1.2.10\n        netmask: 255.255.255.0\n        gateway: 10.1.2.1\n      - type: dhcp6\n  - type: nameserver\n    address: [10.1.2.1]\n",
        ..NoCloud::default()
    });
    let nic = &site.nics[0];
    assert_eq!(nic.link.addresses[0].to_string(), "10.1.2.10/24");
    assert_eq!((nic.link.mtu, nic.link.dhcp6), (Some(1400), true));
    assert_eq!(site.dns.servers.len(), 1);
}

#[test]
fn what_has_no_counterpart_is_refused_at_its_line() {
    for (name, text, line) in [
        (
            "user-data",
            "#cloud-config\nhostname: a\nruncmd:\n  - reboot\n",
            3,
        ),
        ("user-data", "#cloud-config\nwrite_files: []\n", 2),
        ("user-data", "#cloud-config\npackages: [x]\n", 2),
        ("user-data", "#cloud-config\nbootcmd: [x]\n", 2),
        ("user-data", "#!/bin/sh\nreboot\n", 1),
        ("user-data", "#include\nhttp://x\n", 1),
        ("user-data", "#cloud-config\nusers: [default]\n", 2),
        (
            "user-data",
            "#cloud-config\nusers:\n  - name: a\n    shell: /bin/zsh\n",
            4,
        ),
        (
            "user-data",
            "#cloud-config\nusers:\n  - name: a\n    sudo: ALL=(ALL) /bin/ls\n",
            4,
        ),
        ("user-data", "#cloud-config\nusers:\n  - name: 'a]'\n", 3),
        (
            "user-data",
            "#cloud-config\nusers:\n  - name: a\n    passwd: x\n",
            3,
        ),
        ("user-data", "#cloud-config\nntp: {enabled: false}\n", 2),
        ("meta-data", "instance-id: a\npublic-keys: x\n", 2),
        ("network-config", "version: 3\nethernets: {}\n", 1),
        ("network-config", "version: 2\nbonds:\n  b: {}\n", 2),
        (
            "network-config",
            "version: 2\nethernets:\n  e:\n    set-name: x\n",
            4,
        ),
        (
            "network-config",
            "version: 2\nethernets:\n  e:\n    routes: [{to: 10.0.0.0/8, via: 10.0.0.1}]\n",
            4,
        ),
        ("network-config", "version: 1\nconfig:\n  - type: bond\n", 3),
    ] {
        let mut texts = NoCloud::default();
        match name {
            "user-data" => texts.user_data = text,
            "meta-data" => texts.meta_data = text,
            _ => texts.network_config = text,
        }
        let (file, problems) = convert_no_cloud(texts).expect_err(text);
        assert_eq!(
            (file, problems[0].line),
            (name, line),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn a_refused_key_is_told_at_its_own_place() {
    for (user_data, network_config, place) in [
        ("#cloud-config\nhostname: a\npackages:\n  - x\n", "", (3, 1)),
        ("#cloud-config\nntp:\n  pool:\n\n   - x\n", "", (3, 3)),
        (
            "#cloud-config\nntp: {servers: [a], pool: [b]}\n",
            "",
            (2, 21),
        ),
        (
            "#cloud-config\nwrite_files:\n\n  # why\n  - path: /x\n",
            "",
            (2, 1),
        ),
        (
            "",
            "version: 2\nethernets:\n  e:\n    set-name:\n      x\n",
            (4, 5),
        ),
    ] {
        let texts = NoCloud {
            user_data,
            network_config,
            ..NoCloud::default()
        };
        let (_, problems) = convert_no_cloud(texts).expect_err("refused");
        let found = (problems[0].line, problems[0].column);
        assert_eq!(found, place, "{user_data}{network_config}: {problems:?}");
    }
}

/// What the medium's texts become, without the lines that are always there.
fn lines(user_data: &str, network_config: &str) -> Vec<String> {
    let texts = NoCloud {
        user_data,
        network_config,
        ..NoCloud::default()
    };
    let text = convert_no_cloud(texts);
    let text = text.unwrap_or_else(|error| panic!("{user_data}{network_config}{error:#?}"));
    text.lines().skip(5).map(str::to_owned).collect()
}

/// The first problem's place, of how many.
fn refused(user_data: &str, network_config: &str) -> (u32, u32, usize) {
    let texts = NoCloud {
        user_data,
        network_config,
        ..NoCloud::default()
    };
    let (_, problems) = match convert_no_cloud(texts) {
        Ok(text) => panic!("{user_data}{network_config}became\n{text}"),
        Err(refused) => refused,
    };
    (problems[0].line, problems[0].column, problems.len())
}

#[test]
fn name_servers_of_all_places_are_joined() {
    let servers = [
        "[dns]",
        "servers = [\"10.1.2.1\", \"10.1.2.2\"]",
        "search = [\"a.org\", \"b.org\"]",
    ];
    for network in [
        "version: 1\nconfig:\n  - {type: nameserver, address: 10.1.2.1, search: [a.org]}\n  - type: nameserver\n    address: [10.1.2.2, 10.1.2.1]\n    search: b.org\n",
        "version: 1\nconfig:\n  - type: physical\n    name: e\n    subnets:\n      - type: dhcp\n        dns_nameservers: 10.1.2.1\n        dns_search: [a.org]\n  - {type: nameserver, address: 10.1.2.2, search: [b.org]}\n",
        "version: 2\nethernets:\n  e: {dhcp4: true, nameservers: {addresses: [10.1.2.1], search: [a.org]}}\n  f: {dhcp4: true, nameservers: {addresses: [10.1.2.1, 10.1.2.2], search: [b.org, a.org]}}\n",
    ] {
        let mut lines = lines("", network);
        lines.truncate(3);
        lines[1..].sort_by_key(|line| line.starts_with("search"));
        assert_eq!(lines, servers, "{network}");
    }
}

#[test]
fn keys_of_the_default_user_are_joined() {
    let other = KEY.replace("IOMq", "IOMr");
    let users = format!(
        "users:\n  - name: admin\n    ssh_authorized_keys: [{KEY} ann]\n    ssh-authorized-keys: [{KEY} bob]\n"
    );
    let keys = format!("ssh_authorized_keys: [{other}, {KEY}]\n");
    for text in [
        format!("#cloud-config\n{users}{keys}"),
        format!("#cloud-config\n{keys}{users}"),
    ] {
        let expected = format!("ssh_keys = [\"{KEY} ann\", \"{other}\"]");
        assert_eq!(lines(&text, ""), ["[user.admin]", &expected], "{text}");
    }
    let text = "#cloud-config\nusers:\n  - name: admin\n    sudo: ALL=(ALL) NOPASSWD:ALL\n";
    let expected = format!("ssh_keys = [\"{other}\", \"{KEY}\"]");
    let both = lines(&format!("{text}{keys}"), "");
    assert_eq!(both, ["[user.admin]", "sudo = true", &expected]);
    let alone = lines(&format!("#cloud-config\n{keys}"), "");
    assert_eq!(alone, both);
}

#[test]
fn no_group_is_not_the_group_sudo() {
    let text = format!(
        "#cloud-config\nusers:\n  - name: ann\n    groups: []\n    ssh_authorized_keys: [{KEY}]\n"
    );
    let keys = format!("ssh_keys = [\"{KEY}\"]");
    assert_eq!(lines(&text, ""), ["[user.ann]", &keys]);
}

#[test]
fn users_are_whole_or_refused() {
    let key = format!("ssh_authorized_keys: ['{KEY}']");
    let hash = format!("$5$salt${}", "a".repeat(43));
    for (users, place) in [
        (format!("{{name: ann, {key}}}\n  - name: ops"), (4, 11, 1)),
        ("{name: ops, ssh_authorized_keys: []}".into(), (3, 12, 1)),
        (
            format!("{{name: ann, {key}}}\n  - {{name: ann, {key}}}"),
            (4, 12, 1),
        ),
        (
            format!(
                "name: ann\n    passwd: {hash}\n    hashed_passwd: {hash}\n    lock_passwd: false"
            ),
            (5, 5, 1),
        ),
        (
            format!("name: ann\n    {key}\n    lock_passwd: false\n    lock-passwd: true"),
            (6, 5, 1),
        ),
    ] {
        let text = format!("#cloud-config\nusers:\n  - {users}\n");
        assert_eq!(refused(&text, ""), place, "{text}");
    }
}

#[test]
fn two_names_of_the_machine_must_agree() {
    for (names, place) in [
        ("hostname: a\nfqdn: b.org", (2, 11, 1)),
        ("fqdn: ab.org\nhostname: a", (3, 11, 1)),
    ] {
        assert_eq!(refused(&format!("#cloud-config\n{names}\n"), ""), place);
    }
    let medium = |meta_data| NoCloud {
        meta_data,
        ..NoCloud::default()
    };
    let (_, problems) =
        convert_no_cloud(medium("hostname: a\nlocal-hostname: b\n")).expect_err("two names");
    assert_eq!((problems[0].line, problems[0].column), (1, 1));
    converted(medium("hostname: a\nlocal-hostname: a\n"));
}

#[test]
fn no_part_of_the_network_is_passed_over() {
    for (network, place) in [
        (
            "version: 2\nethernets:\n  e:\n    dhcp4: true\n    match: {macaddress: '52:54:00:12:34:56', name: 'ens*'}\n",
            (5, 46, 1),
        ),
        (
            "version: 2\nethernets:\n  e: {dhcp4: true, match: {}}\n",
            (3, 20, 1),
        ),
        ("network: {version: 2}\nbridges:\n  b: {}\n", (2, 1, 1)),
        ("version: 3\n", (1, 10, 1)),
        ("network: {version: 3}\n", (1, 20, 1)),
        ("network: {config: disabled}\n", (1, 11, 1)),
        (
            "version: 2\nethernets:\n  e: {dhcp4: true, nameservers: {type: x}}\n",
            (3, 34, 1),
        ),
        (
            "version: 2\nethernets:\n  e: {dhcp4: true, routes: [{to: 0.0.0.0/0, via: 'fd00::1'}]}\n",
            (3, 29, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, subnets: [{type: dhcp}]}]\n",
            (2, 10, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{type: [dhcp, static]}]}]\n",
            (2, 53, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{address: [10.1.2.3/8, 10.1.2.4/8]}]}]\n",
            (2, 56, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{type: dhcp, netmask: 255.0.0.0}]}]\n",
            (2, 59, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{address: 10.1.2.3/8, netmask: 255.255.0.0}]}]\n",
            (2, 77, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{address: 'fd00::3', netmask: 255.255.0.0}]}]\n",
            (2, 76, 1),
        ),
        (
            "version: 1\nconfig: [{type: physical, name: e, subnets: [{address: 10.1.2.3, netmask: 255.255.0.255}]}]\n",
            (2, 75, 1),
        ),
    ] {
        assert_eq!(refused("", network), place, "{network}");
    }
}

#[test]
fn one_document_may_begin_with_its_marker() {
    let site = converted(NoCloud {
        user_data: "#cloud-config\n---\nhostname: web-1\n",
        ..NoCloud::default()
    });
    assert!(site.system.hostname.is_some());
    let (_, problems) = convert_no_cloud(NoCloud {
        user_data: "#cloud-config\n---\nhostname: web-1\n---\nhostname: web-2\n",
        ..NoCloud::default()
    })
    .expect_err("two documents");
    assert_eq!(problems[0].line, 4);
}

#[test]
fn values_are_judged_at_their_own_place() {
    let user = "#cloud-config\nusers:\n  - name: ann\n    ";
    for (user_data, network_config, place) in [
        (
            format!("{user}lock_passwd: false\n    passwd: hunter2secret\n"),
            "",
            (5, 13, 1),
        ),
        (
            format!("{user}ssh_authorized_keys:\n      - {KEY}\n      - {KEY}A\n"),
            "",
            (6, 9, 1),
        ),
        ("#cloud-config\nhostname: a_b\n".into(), "", (2, 11, 1)),
        ("#cloud-config\nhostname: a: b\n".into(), "", (2, 11, 1)),
        (
            "#cloud-config\nfqdn: a_b.org\nhostname: a_b\nruncmd: []\n".into(),
            "",
            (2, 7, 2),
        ),
        (
            "#cloud-config\nntp:\n  servers: [a, b_c]\n".into(),
            "",
            (3, 16, 1),
        ),
        (
            "#cloud-config\ntimezone: Europe/Köln!\n".into(),
            "",
            (2, 11, 1),
        ),
        (
            "#cloud-config\nca_certs:\n  trusted:\n    - x\n".into(),
            "",
            (4, 7, 1),
        ),
        (
            String::new(),
            "version: 2\nethernets:\n  e:\n    addresses: [10.1.2.3/24, 10.1.2.300/24]\n",
            (4, 30, 1),
        ),
        (
            String::new(),
            "version: 2\nethernets:\n  e:\n    match: {macaddress: '52:54'}\n    dhcp4: true\n",
            (4, 25, 1),
        ),
        (
            String::new(),
            "version: 2\nethernets:\n  e: {}\n",
            (3, 3, 1),
        ),
        (
            String::new(),
            "version: 2\nethernets:\n  e: {dhcp4: true, nameservers: {addresses: [10.1.2.1, 10.1.2.2]}}\n  f: {dhcp4: true, nameservers: {addresses: [10.1.2.3, 10.1.2.4]}}\n",
            (3, 46, 1),
        ),
    ] {
        assert_eq!(
            refused(&user_data, network_config),
            place,
            "{user_data}{network_config}"
        );
    }
    let medium = NoCloud {
        meta_data: "instance-id: a\nlocal-hostname: a_b\n",
        user_data: "#cloud-config\ntimezone: UTC\n",
        ..NoCloud::default()
    };
    let (file, problems) = convert_no_cloud(medium).expect_err("an underscore");
    let problem = &problems[0];
    assert_eq!((file, problem.line, problem.column), ("meta-data", 2, 17));
}

#[test]
fn large_lists_are_refused_in_time() {
    let servers: Vec<String> = (0..20_000).map(|n| format!("n{n}")).collect();
    let text = format!("#cloud-config\nntp: {{servers: [{}]}}\n", servers.join(","));
    assert_eq!(refused(&text, ""), (2, 17, 1));
    let wrong = text.replace('n', "_");
    let wrong = wrong.replace("#cloud-co_fig\n_tp", "#cloud-config\nntp");
    assert_eq!(refused(&wrong, "").0, 2);
}

#[test]
fn a_refused_password_is_not_shown() {
    let text =
        "#cloud-config\nusers:\n  - name: ann\n    lock_passwd: false\n    passwd: hunter2secret\n";
    let refused = convert_no_cloud(NoCloud {
        user_data: text,
        ..NoCloud::default()
    });
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
}

#[test]
fn values_cannot_write_keys() {
    let text = "#cloud-config\nhostname: \"a\\\"\\n[user.root]\\nx = \\\"\"\n";
    assert_eq!(refused(text, ""), (2, 11, 1));
}
