// A guest of 32-bit code that QEMU's -kernel boots (Multiboot 1): it stamps pages for ever.
//
// Step n writes page n mod 2048 of the 8 MiB at 4 MiB: all its words come from n. Then it stores n at 0x300000; the register
// ebp always has n too, so that memory and processor tell the same time when they are of one moment.
.set magic, 0x1badb002
.set pages, 2048
.set area, 0x400000
.set counter, 0x300000

.code32
.section .text
.globl _start
header:
  .long magic, 0, -magic
_start:
  cli
  xorl %ebp, %ebp
next:
  movl %ebp, %edi
  andl $(pages - 1), %edi
  shll $12, %edi
  addl $area, %edi
  movl %ebp, %eax
  movl $1024, %ecx
word:
  imull $1664525, %eax, %eax
  addl $1013904223, %eax
  movl %eax, (%edi)
  addl $4, %edi
  loop word
  incl %ebp
  movl %ebp, counter
  jmp next
