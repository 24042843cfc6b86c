// Uart16550: a serial port as PCs have it (National Semiconductor PC16550D), as far as small guests
// and the drivers of common systems use it: FIFO of 16 bytes, receive and transmit interrupts,
// loopback not.
//
// Sending takes no time: what the guest writes is at once with the host. Receiving: Feed() takes
// bytes as long as the FIFO has room; the caller keeps the rest.
//
// Thread safety: none; the machine locks.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace chkpt {

// Everything that a checkpoint needs; the layout is the one that src/adapters/kvm names.
struct UartState {
  std::uint8_t interrupt_enable = 0;
  std::uint8_t fifo_control = 0;
  std::uint8_t line_control = 0;
  std::uint8_t modem_control = 0;
  std::uint8_t scratch = 0;
  std::uint8_t divisor_low = 1;
  std::uint8_t divisor_high = 0;
  std::uint8_t transmit_interrupt = 0;  // transmitter-empty was not acknowledged yet
  std::uint8_t received_count = 0;      // bytes in `received`, oldest first
  std::array<std::uint8_t, 16> received = {};
};

class Uart16550 {
 public:
  static constexpr std::uint16_t kPort = 0x3f8;
  static constexpr std::uint16_t kPortCount = 8;
  static constexpr std::uint32_t kIrq = 4;

  // Value of a register; reading may change state.
  std::uint8_t Read(std::uint16_t offset);
  // The byte to send, when the write was one.
  std::optional<std::uint8_t> Write(std::uint16_t offset, std::uint8_t value);
  // Takes as many bytes as fit; returns how many.
  std::size_t Feed(std::span<const std::uint8_t> bytes);

  // Whether the interrupt line is up.
  bool interrupt() const { return InterruptId() != kNoInterrupt; }

  const UartState& state() const { return state_; }
  // False, and nothing changed, when it says what no port can be in.
  bool set_state(const UartState& state);

 private:
  static constexpr std::uint8_t kNoInterrupt = 0x01;

  bool divisor_access() const { return (state_.line_control & 0x80) != 0; }
  std::uint8_t InterruptId() const;

  UartState state_;
};

}  // namespace chkpt
