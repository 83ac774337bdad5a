//! `grub.cfg`: one file for BIOS, UEFI and Secure Boot.
//!
//! It chooses a slot by the environment block beside it, which holds
//!
//! | variable | |
//! |---|---|
//! | `order` | slots to try, first to last: `a`, `b a` |
//! | `a_tries`, `b_tries` | `ok`, or how many tries are left: `3` to `0` |
//! | `good` | the slot that worked last |
//!
//! A slot that must prove itself loses a try **before** it is started; where
//! that cannot be written down, it is not started. When no slot of `order`
//! may be started, `good` is, fenced and without `panic=`: there is no way
//! to reboot for ever. GRUB has no arithmetic, hence the table of numbers.
//!
//! Source: GRUB manual 2.06, chapters "Shell-like scripting" and `load_env`.

use std::fmt::Write as _;

use super::super::cmdline::{self, Start};
use super::super::spec::{BootSpec, Slots};

const HEAD: &str = r#"# One file for BIOS, UEFI and Secure Boot; written at build time.
set timeout=0
if [ "$grub_platform" = "pc" ]; then
  if serial --unit=0 --speed=115200; then
    terminal_output console serial
  fi
fi
echo "GRUB platform=$grub_platform"
"#;

const ENVIRONMENT: &str = r#"
set env="$prefix/grubenv"
set order="a"
set good="a"
set a_tries="ok"
set b_tries="0"
load_env --file "$env" order good a_tries b_tries
"#;

const CHOICE: &str = r#"
for slot in $order; do
  set tries="0"
  if [ "$slot" = "a" ]; then set tries="$a_tries"; fi
  if [ "$slot" = "b" ]; then set tries="$b_tries"; fi
  if [ "$tries" = "ok" ]; then
    echo "slot=$slot next=ok"
    start "$slot" normal
  fi
  set next=""
  if [ "$tries" = "3" ]; then set next="2"; fi
  if [ "$tries" = "2" ]; then set next="1"; fi
  if [ "$tries" = "1" ]; then set next="0"; fi
  if [ -n "$next" ]; then
    if [ "$slot" = "a" ]; then set a_tries="$next"; else set b_tries="$next"; fi
    if save_env --file "$env" a_tries b_tries; then
      echo "slot=$slot next=$next"
      start "$slot" try
    fi
  fi
done

if [ "$good" != "b" ]; then set good="a"; fi
echo "No slot has tries left. slot=$good fenced"
start "$good" fenced
"#;

const SINGLE_CHOICE: &str = r#"
echo "slot=a next=ok"
start a normal
"#;

const TAIL: &str = r#"
echo "Nothing on this disk can be started."
"#;

/// The whole file.
pub(super) fn render(spec: &BootSpec) -> String {
    let mut text = String::from(HEAD);
    match spec.slots {
        Slots::Ab { .. } => text.push_str(ENVIRONMENT),
        Slots::Single { .. } => {}
    }
    render_start(&mut text, spec);
    text.push_str(match spec.slots {
        Slots::Ab { .. } => CHOICE,
        Slots::Single { .. } => SINGLE_CHOICE,
    });
    text.push_str(TAIL);
    text
}

/// The function `start SLOT normal|try|fenced`; it returns only when the
/// slot cannot be loaded.
fn render_start(text: &mut String, spec: &BootSpec) {
    text.push_str("\nfunction start {\n");
    for (slot, root) in cmdline::slots(&spec.slots) {
        for (name, start) in [
            ("normal", Start::Normal),
            ("try", Start::Try),
            ("fenced", Start::Fenced),
        ] {
            let line = cmdline::render(spec, slot, root, start);
            let _ = write!(
                text,
                "  if [ \"$1-$2\" = \"{slot}-{name}\" ]; then\n    \
                 if linux /slot-{slot}/vmlinuz {}; then\n      \
                 if initrd /slot-{slot}/initrd; then boot; fi\n    fi\n  fi\n",
                quoted(&line)
            );
        }
    }
    text.push_str("}\n");
}

/// Each word in single quotes, in which GRUB changes nothing.
fn quoted(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{ab_spec, single_spec};
    use super::*;

    #[test]
    fn every_slot_can_be_started_in_three_ways() {
        let text = render(&ab_spec());
        for way in [
            "a-normal", "a-try", "a-fenced", "b-normal", "b-try", "b-fenced",
        ] {
            assert!(text.contains(&format!("= \"{way}\" ]")), "{way}");
        }
        assert!(text.contains(
            "linux /slot-b/vmlinuz 'root=PARTUUID=00000000-0000-0000-0000-00000000000b'"
        ));
    }

    #[test]
    fn a_try_is_written_down_before_it_is_made() {
        let text = render(&ab_spec());
        let save = text.find("if save_env").expect("there");
        let start = text.find("start \"$slot\" try").expect("there");
        assert!(save < start);
    }

    #[test]
    fn a_single_slot_needs_no_environment() {
        let text = render(&single_spec());
        assert!(!text.contains("_env") && !text.contains("slot-b"));
        assert!(text.contains("start a normal"));
    }
}
