// A guest of 32-bit code that talks to a device at ports 0x500-0x50f and addresses 0xd0000000-0xd0000fff: once each kind of
// access, with what it read at 0x300100, then reads of port 0x50c for ever, counted at 0x300000.
.set ports, 0x500
.set mmio, 0xd0000000
.set results, 0x300100
.code32
.section .text
.globl _start
_start:
  movl $ports, %edx
  xorl %eax, %eax
  inb %dx, %al
  movl %eax, results
  movl $(ports + 1), %edx
  inw %dx, %ax
  movl %eax, results + 4
  movl $(ports + 4), %edx
  inl %dx, %eax
  movl %eax, results + 8
  movl $0x44332211, %eax
  outb %al, %dx
  outw %ax, %dx
  outl %eax, %dx
  movl $text, %esi
  movl $5, %ecx
  cld
  rep outsb
  movl $(results + 32), %edi
  movl $3, %ecx
  movl $(ports + 8), %edx
  rep insw
  xorl %eax, %eax
  movb mmio + 3, %al
  movl %eax, results + 12
  movw mmio + 4, %ax
  movl %eax, results + 16
  movl mmio + 8, %eax
  movl %eax, results + 20
  movl $0x88776655, %eax
  movb %al, mmio + 1
  movw %ax, mmio + 2
  movl %eax, mmio + 0xffc
  movl $0x600, %edx     # nobody is there
  inl %dx, %eax
  movl %eax, results + 24
  movl $(ports + 12), %edx
next:
  inl %dx, %eax
  incl 0x300000
  jmp next
text: .ascii "chkpt"
