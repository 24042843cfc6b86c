#include "core/kvm/uart_16550.h"

#include <algorithm>

namespace chkpt {
namespace {

// Registers by offset.
constexpr std::uint16_t kData = 0;
constexpr std::uint16_t kInterruptEnable = 1;
constexpr std::uint16_t kInterruptId = 2;  // read; FIFO control when written
constexpr std::uint16_t kLineControl = 3;
constexpr std::uint16_t kModemControl = 4;
constexpr std::uint16_t kLineStatus = 5;
constexpr std::uint16_t kModemStatus = 6;
constexpr std::uint16_t kScratch = 7;

constexpr std::uint8_t kEnableReceive = 0x01;
constexpr std::uint8_t kEnableTransmit = 0x02;
constexpr std::uint8_t kReceiveReady = 0x04;
constexpr std::uint8_t kTransmitEmpty = 0x02;
constexpr std::uint8_t kFifoEnabled = 0xc0;
constexpr std::uint8_t kLineDataReady = 0x01;
constexpr std::uint8_t kLineTransmitterEmpty = 0x60;  // holding register and shift register
// Carrier, data set ready, clear to send: somebody listens.
constexpr std::uint8_t kModemConnected = 0xb0;

}  // namespace

std::uint8_t Uart16550::InterruptId() const {
  if ((state_.interrupt_enable & kEnableReceive) != 0 && state_.received_count > 0)
    return kReceiveReady;
  if ((state_.interrupt_enable & kEnableTransmit) != 0 && state_.transmit_interrupt != 0) {
    return kTransmitEmpty;
  }
  return kNoInterrupt;
}

std::uint8_t Uart16550::Read(std::uint16_t offset) {
  switch (offset) {
    case kData: {
      if (divisor_access()) return state_.divisor_low;
      if (state_.received_count == 0) return 0;
      const std::uint8_t byte = state_.received[0];
      std::shift_left(state_.received.begin(), state_.received.end(), 1);
      state_.received.back() = 0;
      --state_.received_count;
      return byte;
    }
    case kInterruptEnable: return divisor_access() ? state_.divisor_high : state_.interrupt_enable;
    case kInterruptId: {
      const std::uint8_t id = InterruptId();
      if (id == kTransmitEmpty) state_.transmit_interrupt = 0;
      return static_cast<std::uint8_t>(id | ((state_.fifo_control & 1) != 0 ? kFifoEnabled : 0));
    }
    case kLineControl: return state_.line_control;
    case kModemControl: return state_.modem_control;
    case kLineStatus:
      return static_cast<std::uint8_t>(kLineTransmitterEmpty |
                                       (state_.received_count > 0 ? kLineDataReady : 0));
    case kModemStatus: return kModemConnected;
    case kScratch: return state_.scratch;
    default: return 0xff;
  }
}

std::optional<std::uint8_t> Uart16550::Write(std::uint16_t offset, std::uint8_t value) {
  switch (offset) {
    case kData:
      if (divisor_access()) {
        state_.divisor_low = value;
        return std::nullopt;
      }
      state_.transmit_interrupt = 1;
      return value;
    case kInterruptEnable:
      if (divisor_access()) {
        state_.divisor_high = value;
      } else {
        // Enabling it while the transmitter is empty raises it.
        if ((value & ~state_.interrupt_enable & kEnableTransmit) != 0)
          state_.transmit_interrupt = 1;
        state_.interrupt_enable = value & 0x0f;
      }
      break;
    case kInterruptId:
      if ((value & 0x02) != 0) {
        state_.received = {};
        state_.received_count = 0;
      }
      state_.fifo_control = value & 0xc9;
      break;
    case kLineControl: state_.line_control = value; break;
    case kModemControl: state_.modem_control = value & 0x1f; break;
    case kScratch: state_.scratch = value; break;
    default: break;
  }
  return std::nullopt;
}

std::size_t Uart16550::Feed(std::span<const std::uint8_t> bytes) {
  const std::size_t count = std::min(bytes.size(), state_.received.size() - state_.received_count);
  std::copy_n(bytes.begin(), count, state_.received.begin() + state_.received_count);
  state_.received_count = static_cast<std::uint8_t>(state_.received_count + count);
  return count;
}

bool Uart16550::set_state(const UartState& state) {
  if (state.received_count > state.received.size()) return false;
  state_ = state;
  return true;
}

}  // namespace chkpt
