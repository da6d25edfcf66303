// How far a reconstruction is from the inspected image, pixel by pixel (calib/inspection.py is the reference).
#pragma once

#include <cstddef>

namespace modiff {

// map [height, width]: 5x5 box mean, edges clamped, of the mean over channels of |reconstruction - image|.
// Both images are [channels, height, width]. Returns the score, the largest value of the map.
float anomaly_map(const float* reconstruction, const float* image, int channels, int height, int width, float* map);

}  // namespace modiff
