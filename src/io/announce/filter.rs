//! Socket filters in classic BPF: all of a handful of checks must hold, or the frame never wakes us.

/// A value of a frame, or of what the kernel knows about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// The byte at this offset.
    Byte(u32),
    /// The 16-bit word at this offset, network order.
    Half(u32),
    /// To whom the frame goes: 0 us, 1 broadcast, 2 multicast, 3 others, 4 sent by us.
    PacketType,
    /// Index of the interface on which the frame is, behind VLAN, bond and bridge.
    Interface,
}

/// One condition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// The value is this.
    Equal(Value, u32),
    /// The value is at most this.
    AtMost(Value, u32),
}

/// The program that passes whole frames for which all checks hold, and that are on this interface, for us.
///
/// A frame of a VLAN comes by the socket of the physical interface as well, hence the check of the interface.
pub(super) fn program(interface: u32, checks: &[Check]) -> Vec<libc::sock_filter> {
    let always = [Check::AtMost(Value::PacketType, 2), Check::Equal(Value::Interface, interface)];
    let mut left = u8::try_from(2 * (always.len() + checks.len())).expect("a handful of checks");
    let mut program = Vec::with_capacity(usize::from(left) + 2);
    for check in always.iter().chain(checks) {
        let (Check::Equal(value, _) | Check::AtMost(value, _)) = *check;
        program.push(load(value));
        left -= 2;
        // Failing skips what is left of the checks, and the acceptance.
        program.push(match *check {
            Check::Equal(_, k) => instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, left + 1),
            Check::AtMost(_, k) => instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, k, left + 1, 0),
        });
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0));
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program
}

fn load(value: Value) -> libc::sock_filter {
    let ancillary = |field: libc::c_int| (libc::SKF_AD_OFF + field).cast_unsigned();
    let (size, offset) = match value {
        Value::Byte(offset) => (libc::BPF_B, offset),
        Value::Half(offset) => (libc::BPF_H, offset),
        Value::PacketType => (libc::BPF_B, ancillary(libc::SKF_AD_PKTTYPE)),
        Value::Interface => (libc::BPF_W, ancillary(libc::SKF_AD_IFINDEX)),
    };
    instruction(libc::BPF_LD | size | libc::BPF_ABS, offset, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("opcodes have 16 bits"), jt, jf, k }
}
