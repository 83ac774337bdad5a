//! `VMware`'s guestinfo: a variable of the virtual machine, which the
//! hypervisor reads out at an I/O port.
//!
//! The port is asked in a confined child (see [`super::child`]): whoever is no
//! such hypervisor may end a process that touches it.
//!
//! Source: Linux `drivers/gpu/drm/vmwgfx/vmwgfx_msg.c` and `vmwgfx_msg_x86.h`,
//! the way without the port for long strings, which every host takes.

/// The variable.
pub const NAME: &str = "guestinfo.appliance.config";
/// A value is cut after so many bytes; it may be in base64.
pub const TEXT_LIMIT: usize = 512 << 10;

/// In `eax` at every call, and in `ebx` of who answers as such a hypervisor.
const MAGIC: u32 = 0x564d_5868;
/// In the low half of `edx`.
pub const PORT: u32 = 0x5658;
/// Commands, in the low half of `ecx`.
const GET_VERSION: u32 = 10;
const MESSAGE: u32 = 30;
/// Parts of a message, in the high half of `ecx`.
const OPEN: u32 = 0;
const SEND_SIZE: u32 = 1;
const SEND_PAYLOAD: u32 = 2;
const RECEIVE_SIZE: u32 = 3;
const RECEIVE_PAYLOAD: u32 = 4;
const RECEIVE_STATUS: u32 = 5;
const CLOSE: u32 = 6;
/// What is answered in the high half of `ecx`.
const SUCCESS: u32 = 1;
const HAS_REPLY: u32 = 2;
/// With a failure: the machine was saved or moved meanwhile, and may ask again.
const CHECKPOINT: u32 = 0x10;
/// `RPCI`, with cookies.
const PROTOCOL: u32 = 0x4943_5052 | 0x8000_0000;

/// Registers of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// `eax`.
    pub eax: u32,
    /// The low half of `rbx`.
    pub ebx: u32,
    /// `ecx`.
    pub ecx: u32,
    /// `edx`.
    pub edx: u32,
    /// `esi`.
    pub esi: u32,
    /// `edi`.
    pub edi: u32,
}

/// One call of the hypervisor.
type Call<'c> = &'c mut dyn FnMut(Registers) -> Registers;

/// A channel that is open.
struct Channel<'c> {
    call: Call<'c>,
    number: u32,
    cookies: (u32, u32),
    is_cut: bool,
}

impl Channel<'_> {
    fn pass(&mut self, part: u32, value: u32) -> Option<Registers> {
        let answer = (self.call)(Registers {
            eax: MAGIC,
            ebx: value,
            ecx: MESSAGE | part << 16,
            edx: PORT | self.number << 16,
            esi: self.cookies.0,
            edi: self.cookies.1,
        });
        let status = answer.ecx >> 16;
        self.is_cut = status & SUCCESS == 0 && status & CHECKPOINT != 0;
        (status & SUCCESS != 0).then_some(answer)
    }

    /// Sends a request, and hears at most `limit` bytes and a few more.
    fn ask(&mut self, request: &[u8], limit: usize) -> Option<Vec<u8>> {
        self.pass(SEND_SIZE, u32::try_from(request.len()).ok()?)?;
        for piece in request.chunks(4) {
            let mut word = [0; 4];
            word.get_mut(..piece.len())?.copy_from_slice(piece);
            self.pass(SEND_PAYLOAD, u32::from_le_bytes(word))?;
        }
        let answer = self.pass(RECEIVE_SIZE, 0)?;
        if answer.ecx >> 16 & HAS_REPLY == 0 {
            return None;
        }
        let length = usize::try_from(answer.ebx).ok()?;
        let mut reply = Vec::new();
        while reply.len() < length.min(limit) {
            let word = self.pass(RECEIVE_PAYLOAD, SUCCESS)?.ebx;
            reply.extend_from_slice(&word.to_le_bytes());
        }
        if reply.len() >= length {
            self.pass(RECEIVE_STATUS, SUCCESS)?;
            reply.truncate(length);
        }
        Some(reply)
    }
}

/// The variable's value; nothing where it is empty, or where nobody answers
/// as such a hypervisor.
pub fn get(call: Call<'_>) -> Option<Vec<u8>> {
    let version = call(Registers {
        eax: MAGIC,
        ebx: !MAGIC,
        ecx: GET_VERSION,
        edx: PORT,
        ..Registers::default()
    });
    if version.ebx != MAGIC {
        return None;
    }
    let reply = match reply(call) {
        Err(Cut) => reply(call),
        reply => reply,
    };
    // `1 VALUE`, or `0 No value found`.
    let value = reply.ok()??.strip_prefix(b"1 ")?.to_vec();
    (!value.is_empty()).then_some(value)
}

/// A checkpoint came between.
struct Cut;

/// What is answered in a channel of its own.
fn reply(call: Call<'_>) -> Result<Option<Vec<u8>>, Cut> {
    let mut channel = Channel {
        call,
        number: 0,
        cookies: (0, 0),
        is_cut: false,
    };
    let Some(opened) = channel.pass(OPEN, PROTOCOL) else {
        return if channel.is_cut { Err(Cut) } else { Ok(None) };
    };
    channel.number = opened.edx >> 16;
    channel.cookies = (opened.esi, opened.edi);
    let request = format!("info-get {NAME}");
    let reply = channel.ask(request.as_bytes(), TEXT_LIMIT + 2);
    let is_cut = channel.is_cut;
    channel.pass(CLOSE, 0);
    if is_cut { Err(Cut) } else { Ok(reply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hypervisor with one variable, as strict as the source says.
    struct Host {
        value: &'static [u8],
        is_open: bool,
        asked: Vec<u8>,
        left: usize,
        reply: Vec<u8>,
        /// Calls until it fails.
        calls: usize,
        /// Calls until a checkpoint.
        checkpoints: Vec<usize>,
    }

    const NUMBER: u32 = 5;
    const COOKIES: (u32, u32) = (0x1234_5678, 0x9abc_def0);

    impl Host {
        fn new(value: &'static [u8]) -> Self {
            Self {
                value,
                is_open: false,
                asked: Vec::new(),
                left: 0,
                reply: Vec::new(),
                calls: usize::MAX,
                checkpoints: Vec::new(),
            }
        }

        fn call(&mut self, registers: Registers) -> Registers {
            assert_eq!((registers.eax, registers.edx & 0xffff), (MAGIC, PORT));
            let mut answer = registers;
            answer.ecx &= 0xffff;
            self.calls = self.calls.saturating_sub(1);
            if self.calls == 0 {
                return answer;
            }
            if registers.ecx == GET_VERSION {
                answer.ecx |= SUCCESS << 16;
                answer.ebx = MAGIC;
                return answer;
            }
            let made = usize::MAX - self.calls;
            if self.checkpoints.contains(&made) {
                answer.ecx |= CHECKPOINT << 16;
                return answer;
            }
            answer.ecx |= SUCCESS << 16;
            assert_eq!(registers.ecx & 0xffff, MESSAGE);
            let part = registers.ecx >> 16;
            if part == OPEN {
                assert!(!self.is_open && registers.ebx == PROTOCOL);
                self.is_open = true;
                self.asked.clear();
                answer.edx = PORT | NUMBER << 16;
                (answer.esi, answer.edi) = COOKIES;
                return answer;
            }
            assert!(self.is_open);
            assert_eq!(registers.edx >> 16, NUMBER);
            assert_eq!((registers.esi, registers.edi), COOKIES);
            match part {
                SEND_SIZE => self.left = usize::try_from(registers.ebx).expect("small"),
                SEND_PAYLOAD => {
                    let bytes = registers.ebx.to_le_bytes();
                    let count = self.left.min(4);
                    self.asked.extend_from_slice(&bytes[..count]);
                    self.left -= count;
                }
                RECEIVE_SIZE => {
                    assert_eq!(self.left, 0, "the request came whole");
                    let known = format!("info-get {NAME}").into_bytes() == self.asked;
                    self.reply = if known && !self.value.is_empty() {
                        [b"1 ", self.value].concat()
                    } else {
                        b"0 No value found".to_vec()
                    };
                    answer.ebx = u32::try_from(self.reply.len()).expect("small");
                    answer.ecx |= HAS_REPLY << 16;
                }
                RECEIVE_PAYLOAD => {
                    assert_eq!(registers.ebx, SUCCESS);
                    let mut word = [0xff; 4];
                    let count = self.reply.len().min(4);
                    assert!(count > 0, "more was asked for than there is");
                    word[..count].copy_from_slice(&self.reply[..count]);
                    self.reply.drain(..count);
                    answer.ebx = u32::from_le_bytes(word);
                }
                RECEIVE_STATUS => assert!(self.reply.is_empty()),
                CLOSE => self.is_open = false,
                other => panic!("part {other}"),
            }
            answer
        }
    }

    fn ask(host: &mut Host) -> Option<Vec<u8>> {
        get(&mut |registers| host.call(registers))
    }

    #[test]
    fn a_variable_is_read_whole_and_the_channel_closed() {
        for value in [b"schema = 1\n".as_slice(), b"x", b"abcd", b"abcdef"] {
            let mut host = Host::new(value);
            assert_eq!(ask(&mut host).as_deref(), Some(value));
            assert!(!host.is_open);
        }
        let mut host = Host::new(b"");
        assert_eq!(ask(&mut host), None);
        assert!(!host.is_open);
    }

    #[test]
    fn after_one_checkpoint_it_asks_once_more() {
        let value = b"schema = 1\n".as_slice();
        let mut whole = Host::new(value);
        assert!(ask(&mut whole).is_some());
        let calls = usize::MAX - whole.calls;
        // From the second one, which opens, to the last but one.
        for at in 2..calls {
            let mut host = Host::new(value);
            host.checkpoints = vec![at];
            assert_eq!(ask(&mut host).as_deref(), Some(value), "{at}");
            assert!(!host.is_open);
            host = Host::new(value);
            host.checkpoints = (at..at + 2 * calls).collect();
            assert_eq!(ask(&mut host), None, "{at}");
            assert!(usize::MAX - host.calls <= calls + 2, "it asks without end");
        }
    }

    #[test]
    fn a_long_variable_is_cut_and_the_channel_closed() {
        let mut host = Host::new(Box::leak(vec![b'x'; 2 * TEXT_LIMIT].into_boxed_slice()));
        let value = ask(&mut host).expect("a value");
        assert!((TEXT_LIMIT..TEXT_LIMIT + 4).contains(&value.len()));
        assert!(!host.is_open);
    }

    #[test]
    fn a_host_that_fails_anywhere_has_no_variable() {
        let mut whole = Host::new(b"schema = 1\n");
        assert!(ask(&mut whole).is_some());
        let calls = usize::MAX - whole.calls;
        // All but the last one, which closes.
        for at in 1..calls {
            let mut host = Host::new(b"schema = 1\n");
            host.calls = at;
            assert_eq!(ask(&mut host), None, "{at}");
        }
        // Where nobody is, all bits are set.
        let nobody = Registers {
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            esi: u32::MAX,
            edi: u32::MAX,
        };
        assert_eq!(get(&mut |_| nobody), None);
    }
}
