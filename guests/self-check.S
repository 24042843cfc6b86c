// A guest of 32-bit code, without paging, that finds out by itself whether it is still the one it was. Loaded at 1 MiB; each
// core starts with its number in edi.
//
// Round n of a core: what it wrote 512 rounds ago into page n mod 512 of its 2 MiB must still be there, and its counter in
// memory, xmm0, dr0 and the MSR SYSENTER_ESP must say n as the register ebp does. Then it writes the page and says n + 1 in all
// of them. Core 0 counts ticks of the timer by interrupts meanwhile, and every 256 rounds checks that the device at port 0x500
// (4 bytes, absent where it reads as ones) still has what it wrote last, and sends "round NNNNNNNN ticks NNNNNNNN".
//
// What does not hold is sent as "BAD x", x being the letter in front of the check, and the core stops. Nothing else that is sent
// has capital letters: what cores send at the same moment comes mixed, as "BBAADD".
.set pages, 512
.set wordsPerPage, 8
.set areas, 0x400000  # 2 MiB for each core
.set counters, 0x300000  # 64 bytes for each core
.set ticks, 0x300ff0
.set hasDevice, 0x300ff4
.set scratch, 0x301000  # 64 bytes for each core
.set idt, 0x302000
.set stacks, 0x90000
.set serial, 0x3f8
.set device, 0x500
.set sysenterEsp, 0x175
.set timerVector, 0x20
.set timerCount, 11932  # of 1,193,182 Hz: 100 Hz

.code32
.section .text
.globl _start
_start:
  cli
  movl %edi, %esi
  leal 1(%edi), %esp
  shll $12, %esp
  addl $stacks, %esp
  movl %esi, %ebx
  shll $6, %ebx  # ebx: distance of what is per core
  xorl %ebp, %ebp  # ebp: n
  movl %cr4, %eax
  orl $0x600, %eax  # OSFXSR, OSXMMEXCPT
  movl %eax, %cr4
  call tell
  testl %esi, %esi
  jnz round
  call startTimer
  xorl %ecx, %ecx
  movl $device, %edx
  inl %dx, %eax
  cmpl $-1, %eax
  setne %cl
  movl %ecx, hasDevice
  xorl %eax, %eax
  outl %eax, %dx
  sti

round:
  movl %ebp, %edi
  andl $(pages - 1), %edi
  shll $12, %edi
  addl $areas, %edi
  movl %esi, %eax
  shll $21, %eax
  addl %eax, %edi
  leal -pages(%ebp), %eax
  call stampOf
  cmpl $pages, %ebp
  jae compare
  xorl %eax, %eax  # never written: zeros
compare:
  pushl %edi
  movl $wordsPerPage, %ecx
1: movb $'m', %dl
  cmpl %eax, (%edi)
  jne bad
  addl $(4096 / wordsPerPage), %edi
  loop 1b
  popl %edi
  call check
  movl %ebp, %eax
  call stampOf
  movl $wordsPerPage, %ecx
1: movl %eax, (%edi)
  addl $(4096 / wordsPerPage), %edi
  loop 1b
  incl %ebp
  call tell
  testl %esi, %esi
  jnz round
  testl $255, %ebp
  jnz round
  call checkDevice
  call report
  jmp round

// eax: round -> word of its pages; never zero.
stampOf:
  imull $1664525, %eax, %eax
  addl $1013904223, %eax
  xorl %esi, %eax
  orl $1, %eax
  ret

// Says ebp in every place.
tell:
  movl %ebp, scratch(%ebx)
  movdqu scratch(%ebx), %xmm0
  movl %ebp, %dr0
  movl $sysenterEsp, %ecx
  movl %ebp, %eax
  xorl %edx, %edx
  wrmsr
  movl %ebp, counters(%ebx)
  ret

check:
  movb $'c', %dl
  cmpl %ebp, counters(%ebx)
  jne bad
  movl $-1, scratch(%ebx)
  movdqu %xmm0, scratch(%ebx)
  movb $'x', %dl
  cmpl %ebp, scratch(%ebx)
  jne bad
  movl %dr0, %eax
  movb $'d', %dl
  cmpl %ebp, %eax
  jne bad
  movl $sysenterEsp, %ecx
  rdmsr
  movb $'s', %dl
  cmpl %ebp, %eax
  jne bad
  ret

checkDevice:
  testl $1, hasDevice
  jz 1f
  movl $device, %edx
  inl %dx, %eax
  leal -256(%ebp), %ecx
  cmpl %ecx, %eax
  movb $'p', %dl
  jne bad
  movl $device, %edx
  movl %ebp, %eax
  outl %eax, %dx
1: ret

report:
  movl $roundText, %eax
  call send
  movl %ebp, %eax
  call sendNumber
  movl $ticksText, %eax
  call send
  movl ticks, %eax
  call sendNumber
  movl $endText, %eax
  jmp send

// dl: which check
bad:
  cli
  movb %dl, badLetter
  movl $badText, %eax
  call send
1: hlt
  jmp 1b

// eax: text that ends with a zero
send:
  movl %eax, %ecx
  movl $serial, %edx
1: movb (%ecx), %al
  testb %al, %al
  jz 2f
  outb %al, %dx
  incl %ecx
  jmp 1b
2: ret

sendNumber:
  movl $8, %ecx
  movl $serial, %edx
1: roll $4, %eax
  pushl %eax
  andl $15, %eax
  movb digits(%eax), %al
  outb %al, %dx
  popl %eax
  loop 1b
  ret

startTimer:
  lgdt gdtPointer
  movl $onTick, %eax
  movw %ax, idt + timerVector * 8
  movw $8, idt + timerVector * 8 + 2
  movw $0x8e00, idt + timerVector * 8 + 4
  shrl $16, %eax
  movw %ax, idt + timerVector * 8 + 6
  lidt idtPointer
  movb $0x11, %al  # both controllers: edge, cascade, four words
  outb %al, $0x20
  outb %al, $0xa0
  movb $timerVector, %al
  outb %al, $0x21
  movb $(timerVector + 8), %al
  outb %al, $0xa1
  movb $4, %al
  outb %al, $0x21
  movb $2, %al
  outb %al, $0xa1
  movb $1, %al
  outb %al, $0x21
  outb %al, $0xa1
  movb $0xfe, %al  # line 0 alone
  outb %al, $0x21
  movb $0xff, %al
  outb %al, $0xa1
  movb $0x34, %al  # channel 0, rate generator
  outb %al, $0x43
  movb $(timerCount & 255), %al
  outb %al, $0x40
  movb $(timerCount >> 8), %al
  outb %al, $0x40
  ret

onTick:
  pushl %eax
  incl ticks
  movb $0x20, %al
  outb %al, $0x20
  popl %eax
  pushl 8(%esp)           # as iretl, which the instruction emulator of KVM does not know in protected mode
  popfl
  ret $8

roundText: .asciz "round "
ticksText: .asciz " ticks "
endText: .asciz "\n"
badText: .ascii "BAD "
badLetter: .asciz "?\n"
digits: .ascii "0123456789abcdef"
.balign 8
gdt:
  .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtPointer:
  .word . - gdt - 1
  .long gdt
idtPointer:
  .word (timerVector + 1) * 8 - 1
  .long idt
