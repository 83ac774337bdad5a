//! A guest of a few instructions: a boot sector that writes a text to the
//! serial line. It runs in a quarter of a second.

/// What a guest does after its text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// Nothing more.
    Stops,
    /// It resets the machine.
    Resets,
}

/// A boot sector that writes `text` to the first serial line.
pub(crate) fn boot_sector(text: &str, then: Then) -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x1a, 0x7c, // mov si, text
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz end
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
    ];
    match then {
        Then::Stops => sector.extend([0xf4, 0xeb, 0xfd, 0, 0, 0, 0, 0]), // hlt; jmp hlt
        Then::Resets => sector.extend([0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd, 0]), // 8042 reset
    }
    assert_eq!(sector.len(), 0x1a, "where `mov si` says the text is");
    sector.extend(text.as_bytes());
    assert!(sector.len() < 510, "a text of one sector");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // Some controllers refuse a disk of one sector.
    sector.resize(1 << 20, 0);
    sector
}
