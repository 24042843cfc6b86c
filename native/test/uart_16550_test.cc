// The serial port as the drivers of guests see it: PC16550D data sheet, sections 8.1 to 8.6.
#include "core/kvm/uart_16550.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace chkpt {
namespace {

constexpr std::uint16_t kData = 0;
constexpr std::uint16_t kInterruptEnable = 1;
constexpr std::uint16_t kInterruptId = 2;
constexpr std::uint16_t kLineControl = 3;
constexpr std::uint16_t kLineStatus = 5;

TEST(Uart16550, SendsWhatIsWrittenToDataUnlessTheDivisorIsSelected) {
  Uart16550 uart;
  EXPECT_EQ(uart.Write(kData, 'x'), std::optional<std::uint8_t>('x'));
  uart.Write(kLineControl, 0x83);
  EXPECT_EQ(uart.Write(kData, 0x0c), std::nullopt);
  EXPECT_EQ(uart.Write(kInterruptEnable, 0x01), std::nullopt);
  EXPECT_EQ(uart.Read(kData), 0x0c);
  EXPECT_EQ(uart.Read(kInterruptEnable), 0x01);
  uart.Write(kLineControl, 0x03);
  EXPECT_EQ(uart.Read(kInterruptEnable), 0x00);  // the divisor is another register
}

TEST(Uart16550, ReceivesInOrderAsLongAsThereIsRoom) {
  Uart16550 uart;
  std::vector<std::uint8_t> bytes(20);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{1});
  EXPECT_EQ(uart.Feed(bytes), 16u);
  EXPECT_EQ(uart.Feed(bytes), 0u);
  EXPECT_EQ(uart.Read(kLineStatus) & 1, 1);
  for (std::uint8_t expected = 1; expected <= 16; ++expected) EXPECT_EQ(uart.Read(kData), expected);
  EXPECT_EQ(uart.Read(kLineStatus) & 1, 0);
}

TEST(Uart16550, InterruptsForWhatIsEnabled) {
  Uart16550 uart;
  const std::vector<std::uint8_t> one = {'a'};
  uart.Feed(one);
  EXPECT_FALSE(uart.interrupt());
  uart.Write(kInterruptEnable, 0x01);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(uart.Read(kInterruptId) & 0x0f, 0x04);
  uart.Read(kData);
  EXPECT_FALSE(uart.interrupt());
  // The transmitter is empty: enabling its interrupt raises it, reading which one it is ends it.
  uart.Write(kInterruptEnable, 0x02);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(uart.Read(kInterruptId) & 0x0f, 0x02);
  EXPECT_FALSE(uart.interrupt());
  uart.Write(kData, 'x');
  EXPECT_TRUE(uart.interrupt());
}

TEST(Uart16550, StateGoesFromOneToAnotherAndCannotHoldTooMuch) {
  Uart16550 from;
  Uart16550 to;
  const std::vector<std::uint8_t> bytes = {'a', 'b', 'c'};
  from.Write(kInterruptEnable, 0x01);
  from.Feed(bytes);
  from.Read(kData);
  ASSERT_TRUE(to.set_state(from.state()));
  EXPECT_TRUE(to.interrupt());
  EXPECT_EQ(to.Read(kData), 'b');
  EXPECT_EQ(to.Read(kData), 'c');
  EXPECT_FALSE(to.interrupt());
  UartState forged = from.state();
  forged.received_count = 17;
  EXPECT_FALSE(to.set_state(forged));
}

}  // namespace
}  // namespace chkpt
