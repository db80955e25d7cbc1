// Marks a function that host code and kernels of a GPU share.
#pragma once

#ifdef __CUDACC__
#define PKV_HOST_DEVICE __host__ __device__
#else
#define PKV_HOST_DEVICE
#endif
