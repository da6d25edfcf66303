// Counts the instructions that a program executes under qemu-aarch64, by class and by place. Under another emulator, such
// as qemu-x86_64, it counts as well, but everything is of class "other".
//
// Each translated block gets one 64-bit counter, bumped inline whenever the block runs; what a block holds is known
// from its translation, so a class's total is the sum of (times the block ran) * (instructions of that class in it).
// Counters are plain additions: exact and repeatable for one thread.
//
//   qemu-aarch64 -plugin ./count.so,out=FILE[,mark=NAME:OFFSET] PROGRAM
//
// `mark` names an instruction by the end of its file's path and its offset in that file (hexadecimal). Each time it
// runs, the totals so far are written: differences between them are what each stretch between two marks executed.
// Output, one record a line:
//   classes NAME ...            the order of the columns
//   mark TOTAL ...              at each mark
//   block PATH OFFSET RAN COUNT ...    at the end: instructions of each class in the block, not multiplied
//   total TOTAL ...             at the end
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "a64.h"
#include "qemu.h"

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

typedef struct Block {
  uint64_t ran;
  uint32_t counts[kClasses];
  uint64_t offset;
  const char *path;
  struct Block *next;
} Block;

typedef struct {
  uintptr_t first, last;
  uint64_t offset;
  char *path;
} Mapping;

static Block *g_blocks;
static FILE *g_out;
static int g_a64;
static const char *g_mark_file;
static uint64_t g_mark_offset;
static Mapping g_mappings[4096];
static size_t g_mapping_count;

static void read_mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4352], path[4096];
  g_mapping_count = 0;
  while (maps && fgets(line, sizeof line, maps) && g_mapping_count < sizeof g_mappings / sizeof *g_mappings) {
    Mapping *m = &g_mappings[g_mapping_count];
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %*s %4095s", &m->first, &m->last, &m->offset,
               path) == 4) {
      m->path = strdup(path);  // a block keeps it for good, so it is never freed
      ++g_mapping_count;
    }
  }
  if (maps) {
    fclose(maps);
  }
}

static const Mapping *find_mapping(uintptr_t address) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (size_t i = 0; i < g_mapping_count; ++i) {
      if (address >= g_mappings[i].first && address < g_mappings[i].last) {
        return &g_mappings[i];
      }
    }
    read_mappings();
  }
  return NULL;
}

static void write_totals(const char *kind) {
  uint64_t totals[kClasses] = {0};
  for (const Block *block = g_blocks; block; block = block->next) {
    for (int c = 0; c < kClasses; ++c) {
      totals[c] += block->ran * block->counts[c];
    }
  }
  fputs(kind, g_out);
  for (int c = 0; c < kClasses; ++c) {
    fprintf(g_out, " %" PRIu64, totals[c]);
  }
  fputc('\n', g_out);
}

static void on_mark(unsigned int vcpu, void *data) {
  (void)vcpu;
  (void)data;
  write_totals("mark");
}

static int ends_with(const char *path, const char *end) {
  const size_t length = strlen(path), tail = strlen(end);
  return length >= tail && strcmp(path + length - tail, end) == 0;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  Block *block = calloc(1, sizeof *block);
  if (!block) {
    abort();
  }
  const size_t count = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    uint32_t word = 0;
    if (g_a64) {
      memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
    }
    block->counts[g_a64 ? class_of(word) : kOther] += 1;
    const uintptr_t address = (uintptr_t)qemu_plugin_insn_haddr(insn);
    const Mapping *mapping = i == 0 || g_mark_file ? find_mapping(address) : NULL;
    if (!mapping) {
      continue;
    }
    const uint64_t offset = address - mapping->first + mapping->offset;
    if (i == 0) {
      block->path = mapping->path;
      block->offset = offset;
    }
    if (g_mark_file && offset == g_mark_offset && ends_with(mapping->path, g_mark_file)) {
      qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
  }
  block->next = g_blocks;
  g_blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->ran, 1);
}

static void at_end(qemu_plugin_id_t id, void *data) {
  (void)id;
  (void)data;
  for (const Block *block = g_blocks; block; block = block->next) {
    if (block->ran) {
      fprintf(g_out, "block %s %" PRIx64 " %" PRIu64, block->path ? block->path : "?", block->offset, block->ran);
      for (int c = 0; c < kClasses; ++c) {
        fprintf(g_out, " %" PRIu32, block->counts[c]);
      }
      fputc('\n', g_out);
    }
  }
  write_totals("total");
  fclose(g_out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                                               char **argv) {
  g_a64 = strcmp(info->target_name, "aarch64") == 0;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "out=", 4) == 0) {
      g_out = fopen(argv[i] + 4, "w");
    } else if (strncmp(argv[i], "mark=", 5) == 0) {
      char *colon = strrchr(argv[i], ':');
      if (!colon) {
        return -1;
      }
      *colon = '\0';
      g_mark_file = argv[i] + 5;
      g_mark_offset = strtoull(colon + 1, NULL, 16);
    } else {
      return -1;
    }
  }
  if (!g_out) {
    return -1;
  }
  fputs("classes", g_out);
  for (int c = 0; c < kClasses; ++c) {
    fprintf(g_out, " %s", kClassNames[c]);
  }
  fputc('\n', g_out);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, at_end, NULL);
  return 0;
}
