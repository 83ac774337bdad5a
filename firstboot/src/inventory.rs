//! What is known of the machine and what it became, as JSON. No secrets, and
//! nothing of the configuration but what it is known by.

use crate::addresses;
use crate::data_disk;
use crate::image::Image;
use crate::root::Root;
use crate::status::Status;
use crate::step::host_key;
use crate::text::{quoted, quoted_list};

const DMI: &str = "/sys/class/dmi/id";
const NETWORK: &str = "/sys/class/net";
const BLOCK: &str = "/sys/class/block";
const SECTOR: u64 = 512;

/// One line of `/sys`, or nothing.
fn value(root: &Root, path: &str) -> String {
    let text = root.read_text(path, 4096).unwrap_or_default();
    text.trim_matches(['\0', '\n', ' ']).to_owned()
}

fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{}:{value}", quoted(key)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// The machine.
pub fn machine(root: &Root) -> String {
    let dmi = |name: &str| quoted(&value(root, &format!("{DMI}/{name}")));
    let nics = root.list(NETWORK).unwrap_or_default();
    let nics = nics.iter().filter(|name| *name != "lo").map(|name| {
        object(&[
            ("name", quoted(name)),
            (
                "mac",
                quoted(&value(root, &format!("{NETWORK}/{name}/address"))),
            ),
        ])
    });
    let disks = root.list(BLOCK).unwrap_or_default();
    let is_disk = |name: &&String| {
        root.exists(&format!("{BLOCK}/{name}/device"))
            && !root.exists(&format!("{BLOCK}/{name}/partition"))
    };
    let disks = disks.iter().filter(is_disk).map(|name| {
        let sectors = value(root, &format!("{BLOCK}/{name}/size")).parse::<u64>();
        let serial = data_disk::serial(root, name);
        object(&[
            ("name", quoted(name)),
            (
                "bytes",
                sectors.unwrap_or(0).saturating_mul(SECTOR).to_string(),
            ),
            ("serial", quoted(&serial)),
        ])
    });
    let uname = rustix::system::uname();
    let addresses: Vec<String> = addresses::addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    object(&[
        ("host", quoted(&uname.nodename().to_string_lossy())),
        ("kernel", quoted(&uname.release().to_string_lossy())),
        ("vendor", dmi("sys_vendor")),
        ("product", dmi("product_name")),
        ("uuid", dmi("product_uuid")),
        ("nics", list(nics)),
        ("disks", list(disks)),
        (
            "addresses",
            quoted_list(addresses.iter().map(String::as_str)),
        ),
        (
            "host_key",
            quoted(&host_key::fingerprint(root).unwrap_or_default()),
        ),
    ])
}

/// What `report.json` holds.
pub fn report(root: &Root, status: &Status) -> String {
    let image = Image::load(root);
    object(&[
        ("kind", quoted("consign-report")),
        ("schema", "1".to_owned()),
        ("agent", quoted(env!("CARGO_PKG_VERSION"))),
        (
            "image",
            object(&[
                ("name", quoted(&image.name)),
                ("version", quoted(&image.version)),
                ("build", quoted(&image.build)),
            ]),
        ),
        ("status", status.json()),
        ("machine", machine(root)),
    ])
}
