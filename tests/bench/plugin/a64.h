// Which class an A64 instruction belongs to, from its opcode bits alone.
// Source: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter C4 "A64 instruction set encoding".
#ifndef MODIFF_BENCH_A64_H
#define MODIFF_BENCH_A64_H

#include <stdint.h>

enum Class { kSdot, kMatmul, kWiden, kFmla, kFmlaHalf, kVector, kLoad, kStore, kInteger, kBranch, kOther, kClasses };

static const char *const kClassNames[kClasses] = {"sdot", "smmla", "smull", "fmla",    "fmla16", "vector",
                                                  "load", "store", "integer", "branch", "other"};

static inline int matches(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

// Multiply-accumulates of vectors; kVector for everything else of the SIMD and floating-point group.
static inline enum Class class_of_vector(uint32_t word) {
  if (matches(word, 0x9F20FC00, 0x0E009400) ||   // SDOT, UDOT
      matches(word, 0x9F00F400, 0x0F00E000) ||   // SDOT, UDOT by element
      matches(word, 0xBFE0FC00, 0x0E809C00) ||   // USDOT
      matches(word, 0xBF40F400, 0x0F00F000)) {   // USDOT, SUDOT by element
    return kSdot;
  }
  if (matches(word, 0xDFE0F400, 0x4E80A400)) {   // SMMLA, UMMLA, USMMLA
    return kMatmul;
  }
  if (matches(word, 0x9F208C00, 0x0E208000) ||   // three different: SMLAL, SMLSL, SMULL, SQDML*, PMULL
      matches(word, 0x9F003400, 0x0F002000) ||   // the same by element
      matches(word, 0xBF3FFC00, 0x0E206800) ||   // SADALP
      matches(word, 0x9F20F400, 0x0E209400) ||   // MLA, MLS, MUL of integers
      matches(word, 0xBF00F400, 0x0F008000) ||   // MUL by element
      matches(word, 0xBF00B400, 0x2F000000)) {   // MLA, MLS by element
    return kWiden;
  }
  if (matches(word, 0xBFA0FC00, 0x0E20CC00) || matches(word, 0xBFA0FC00, 0x0EA0CC00) ||  // FMLA, FMLS
      matches(word, 0xBF80B400, 0x0F801000) ||   // FMLA, FMLS by element
      matches(word, 0xFF000000, 0x1F000000)) {   // FMADD, FMSUB, FNMADD, FNMSUB
    return kFmla;
  }
  if (matches(word, 0xBF60FC00, 0x0E400C00) ||   // FMLA, FMLS of halves
      matches(word, 0xBFC0B400, 0x0F001000)) {   // by element
    return kFmlaHalf;
  }
  return kVector;
}

static inline enum Class class_of_memory(uint32_t word) {
  const uint32_t load_bit = word >> 22 & 1;
  if (matches(word, 0xBE000000, 0x0C000000) ||   // LD1..LD4, ST1..ST4
      matches(word, 0x3F000000, 0x08000000) ||   // exclusive, acquire, release, compare and swap
      matches(word, 0x3A000000, 0x28000000)) {   // pairs
    return load_bit ? kLoad : kStore;
  }
  if (matches(word, 0x3B000000, 0x18000000)) {   // literal
    return kLoad;
  }
  if (matches(word, 0x3B200C00, 0x38200000)) {   // atomic read-modify-write
    return kOther;
  }
  if (matches(word, 0x3A000000, 0x38000000)) {   // one register
    const uint32_t vector = word >> 26 & 1;
    const uint32_t opc = word >> 22 & 3;
    if (!vector && opc == 2 && word >> 30 == 3) {
      return kOther;                             // PRFM
    }
    return vector ? (opc & 1 ? kLoad : kStore) : (opc ? kLoad : kStore);
  }
  return kOther;
}

static inline enum Class class_of(uint32_t word) {
  const uint32_t group = word >> 25 & 15;
  if ((group & 7) == 7) {
    return class_of_vector(word);
  }
  if ((group & 5) == 4) {
    return class_of_memory(word);
  }
  if ((group & 14) == 10) {
    return kBranch;                              // system instructions (MSR, barriers, NOP) among them
  }
  return (group & 14) == 8 || (group & 7) == 5 ? kInteger : kOther;
}

#endif
