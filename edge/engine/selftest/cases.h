// The kinds of case; main.cpp says what each reads and answers.
#pragma once

#include "kernels/kernel_set.h"

namespace selftest {

void run_layer_case(const modiff::KernelSet& kernels);
void run_normalize_case(const modiff::KernelSet& kernels);
void run_attention_case(const modiff::KernelSet& kernels);
void run_reuse_case(const modiff::KernelSet& kernels);
void run_permute_case();
void run_noise_case();
void run_checksum_case();
void run_anomalies_case();
void run_activations_case(const modiff::KernelSet& kernels);

}  // namespace selftest
