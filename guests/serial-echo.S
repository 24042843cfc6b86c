// A guest of 32-bit code that sends back each byte it receives over the serial port at 0x3f8, plus one.
.code32
.section .text
.globl _start
_start:
  movl $0x3fd, %edx
  inb %dx, %al
  testb $1, %al
  jz _start
  movl $0x3f8, %edx
  inb %dx, %al
  incl %eax
  outb %al, %dx
  jmp _start
