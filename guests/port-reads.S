// A guest of 32-bit code that reads a port for ever: the one whose number is at 0x300004, which may change. How often is at
// 0x300000.
// A number of 0 reads none: what the loop costs alone.
.code32
.section .text
.globl _start
_start:
  movl 0x300004, %edx
  testl %edx, %edx
  jz count
  inl %dx, %eax
count:
  incl 0x300000
  jmp _start
