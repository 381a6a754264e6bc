/* SPDX-License-Identifier: Apache-2.0
 *
 * The flavours whose stream 0 is the calling thread's own, and older names of the same functions.
 */
#include "queue.h"

#include <string.h>

#define OWN_STREAM(name, parameters, ...) \
	EXPORT CUresult name##_ptsz parameters; \
	EXPORT CUresult name##_ptsz parameters \
	{ \
		return name(__VA_ARGS__); \
	}
#define OLDER(old, name, parameters, ...) \
	EXPORT CUresult old parameters; \
	EXPORT CUresult old parameters \
	{ \
		return name(__VA_ARGS__); \
	}

OWN_STREAM(cuEventRecordWithFlags, (CUevent hEvent, CUstream hStream, unsigned int flags), hEvent, PER_THREAD(hStream),
	   flags)
OWN_STREAM(cuEventRecord, (CUevent hEvent, CUstream hStream), hEvent, PER_THREAD(hStream))
OWN_STREAM(cuGraphLaunch, (CUgraphExec hGraphExec, CUstream hStream), hGraphExec, PER_THREAD(hStream))
OWN_STREAM(cuGraphUpload, (CUgraphExec hGraphExec, CUstream hStream), hGraphExec, PER_THREAD(hStream))
OWN_STREAM(cuLaunchHostFunc, (CUstream hStream, CUhostFn fn, void *userData), PER_THREAD(hStream), fn, userData)
OWN_STREAM(cuMemAllocAsync, (CUdeviceptr * dptr, size_t bytesize, CUstream hStream), dptr, bytesize,
	   PER_THREAD(hStream))
OWN_STREAM(cuMemAllocFromPoolAsync, (CUdeviceptr * dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream), dptr,
	   bytesize, pool, PER_THREAD(hStream))
OWN_STREAM(cuMemFreeAsync, (CUdeviceptr dptr, CUstream hStream), dptr, PER_THREAD(hStream))
OWN_STREAM(cuMemDiscardAndPrefetchBatchAsync,
	   (CUdeviceptr * dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
	    size_t numPrefetchLocs, unsigned long long flags, CUstream hStream),
	   dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, PER_THREAD(hStream))
OWN_STREAM(cuMemDiscardBatchAsync,
	   (CUdeviceptr * dptrs, size_t *sizes, size_t count, unsigned long long flags, CUstream hStream), dptrs, sizes,
	   count, flags, PER_THREAD(hStream))
OWN_STREAM(cuMemPrefetchBatchAsync,
	   (CUdeviceptr * dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
	    size_t numPrefetchLocs, unsigned long long flags, CUstream hStream),
	   dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyBatchAsync,
	   (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
	    size_t *attrsIdxs, size_t numAttrs, size_t *failIdx, CUstream hStream),
	   dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, failIdx, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyBatchAsync_v2,
	   (CUdeviceptr * dsts, CUdeviceptr *srcs, size_t *sizes, size_t count, CUmemcpyAttributes *attrs,
	    size_t *attrsIdxs, size_t numAttrs, CUstream hStream),
	   dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, PER_THREAD(hStream))
OWN_STREAM(cuMemPrefetchAsync, (CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream), devPtr, count,
	   dstDevice, PER_THREAD(hStream))
OWN_STREAM(cuMemPrefetchAsync_v2,
	   (CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags, CUstream hStream), devPtr,
	   count, location, flags, PER_THREAD(hStream))
OWN_STREAM(cuMemcpy2DAsync_v2, (const CUDA_MEMCPY2D *pCopy, CUstream hStream), pCopy, PER_THREAD(hStream))
OWN_STREAM(cuMemcpy3DAsync_v2, (const CUDA_MEMCPY3D *pCopy, CUstream hStream), pCopy, PER_THREAD(hStream))
OWN_STREAM(cuMemcpy3DPeerAsync, (const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream), pCopy, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyAsync, (CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream), dst, src, ByteCount,
	   PER_THREAD(hStream))
OWN_STREAM(cuMemcpyDtoDAsync_v2, (CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream),
	   dstDevice, srcDevice, ByteCount, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyDtoHAsync_v2, (void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream), dstHost,
	   srcDevice, ByteCount, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyHtoDAsync_v2, (CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream),
	   dstDevice, srcHost, ByteCount, PER_THREAD(hStream))
OWN_STREAM(cuMemcpyPeerAsync,
	   (CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext, size_t ByteCount,
	    CUstream hStream),
	   dstDevice, dstContext, srcDevice, srcContext, ByteCount, PER_THREAD(hStream))
OWN_STREAM(cuStreamAddCallback, (CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags),
	   PER_THREAD(hStream), callback, userData, flags)
OWN_STREAM(cuStreamAttachMemAsync, (CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags),
	   PER_THREAD(hStream), dptr, length, flags)
OWN_STREAM(cuStreamBatchMemOp_v2,
	   (CUstream stream, unsigned int count, CUstreamBatchMemOpParams *paramArray, unsigned int flags),
	   PER_THREAD(stream), count, paramArray, flags)
OWN_STREAM(cuStreamBeginCaptureToGraph,
	   (CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies, const CUgraphEdgeData *dependencyData,
	    size_t numDependencies, CUstreamCaptureMode mode),
	   PER_THREAD(hStream), hGraph, dependencies, dependencyData, numDependencies, mode)
OWN_STREAM(cuStreamBeginCapture_v2, (CUstream hStream, CUstreamCaptureMode mode), PER_THREAD(hStream), mode)
OWN_STREAM(cuStreamCopyAttributes, (CUstream dst, CUstream src), PER_THREAD(dst), PER_THREAD(src))
OWN_STREAM(cuStreamEndCapture, (CUstream hStream, CUgraph *phGraph), PER_THREAD(hStream), phGraph)
OWN_STREAM(cuStreamGetAttribute, (CUstream hStream, CUstreamAttrID attr, CUstreamAttrValue *value_out),
	   PER_THREAD(hStream), attr, value_out)
OWN_STREAM(cuStreamGetCaptureInfo, (CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out),
	   PER_THREAD(hStream), captureStatus_out, id_out)
OWN_STREAM(cuStreamGetCaptureInfo_v2,
	   (CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out, CUgraph *graph_out,
	    const CUgraphNode **dependencies_out, size_t *numDependencies_out),
	   PER_THREAD(hStream), captureStatus_out, id_out, graph_out, dependencies_out, numDependencies_out)
OWN_STREAM(cuStreamGetCaptureInfo_v3,
	   (CUstream hStream, CUstreamCaptureStatus *captureStatus_out, cuuint64_t *id_out, CUgraph *graph_out,
	    const CUgraphNode **dependencies_out, const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out),
	   PER_THREAD(hStream), captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out,
	   numDependencies_out)
OWN_STREAM(cuStreamGetCtx, (CUstream hStream, CUcontext *pctx), PER_THREAD(hStream), pctx)
OWN_STREAM(cuStreamGetCtx_v2, (CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx), PER_THREAD(hStream), pCtx,
	   pGreenCtx)
OWN_STREAM(cuStreamGetDevice, (CUstream hStream, CUdevice *device), PER_THREAD(hStream), device)
OWN_STREAM(cuStreamGetFlags, (CUstream hStream, unsigned int *flags), PER_THREAD(hStream), flags)
OWN_STREAM(cuStreamGetId, (CUstream hStream, unsigned long long *streamId), PER_THREAD(hStream), streamId)
OWN_STREAM(cuStreamGetPriority, (CUstream hStream, int *priority), PER_THREAD(hStream), priority)
OWN_STREAM(cuStreamIsCapturing, (CUstream hStream, CUstreamCaptureStatus *captureStatus), PER_THREAD(hStream),
	   captureStatus)
OWN_STREAM(cuStreamQuery, (CUstream hStream), PER_THREAD(hStream))
OWN_STREAM(cuStreamSetAttribute, (CUstream hStream, CUstreamAttrID attr, const CUstreamAttrValue *value),
	   PER_THREAD(hStream), attr, value)
OWN_STREAM(cuStreamSynchronize, (CUstream hStream), PER_THREAD(hStream))
OWN_STREAM(cuStreamUpdateCaptureDependencies_v2,
	   (CUstream hStream, CUgraphNode *dependencies, const CUgraphEdgeData *dependencyData, size_t numDependencies,
	    unsigned int flags),
	   PER_THREAD(hStream), dependencies, dependencyData, numDependencies, flags)
OWN_STREAM(cuStreamWaitEvent, (CUstream hStream, CUevent hEvent, unsigned int Flags), PER_THREAD(hStream), hEvent,
	   Flags)
OWN_STREAM(cuStreamWaitValue32_v2, (CUstream stream, CUdeviceptr addr, cuuint32_t value, unsigned int flags),
	   PER_THREAD(stream), addr, value, flags)
OWN_STREAM(cuStreamWaitValue64_v2, (CUstream stream, CUdeviceptr addr, cuuint64_t value, unsigned int flags),
	   PER_THREAD(stream), addr, value, flags)
OWN_STREAM(cuStreamWriteValue32_v2, (CUstream stream, CUdeviceptr addr, cuuint32_t value, unsigned int flags),
	   PER_THREAD(stream), addr, value, flags)
OWN_STREAM(cuStreamWriteValue64_v2, (CUstream stream, CUdeviceptr addr, cuuint64_t value, unsigned int flags),
	   PER_THREAD(stream), addr, value, flags)

/* ------------------------------------------------------------------ older names */

OLDER(cuCtxDestroy, cuCtxDestroy_v2, (CUcontext ctx), ctx)
OLDER(cuCtxPopCurrent, cuCtxPopCurrent_v2, (CUcontext * pctx), pctx)
OLDER(cuCtxPushCurrent, cuCtxPushCurrent_v2, (CUcontext ctx), ctx)
OLDER(cuEventDestroy, cuEventDestroy_v2, (CUevent hEvent), hEvent)
OLDER(cuStreamDestroy, cuStreamDestroy_v2, (CUstream hStream), hStream)
OLDER(cuMemHostRegister, cuMemHostRegister_v2, (void *p, size_t bytesize, unsigned int Flags), p, bytesize, Flags)
OLDER(cuLinkCreate, cuLinkCreate_v2,
      (unsigned int numOptions, CUjit_option *options, void **optionValues, CUlinkState *stateOut), numOptions, options,
      optionValues, stateOut)
OLDER(cuLinkAddData, cuLinkAddData_v2,
      (CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned int numOptions,
       CUjit_option *options, void **optionValues),
      state, type, data, size, name, numOptions, options, optionValues)
OLDER(cuLinkAddFile, cuLinkAddFile_v2,
      (CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions, CUjit_option *options,
       void **optionValues),
      state, type, path, numOptions, options, optionValues)
OLDER(cuGetProcAddress_v2_ptsz, cuGetProcAddress_v2,
      (const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags, CUdriverProcAddressQueryResult *symbolStatus),
      symbol, pfn, cudaVersion, flags | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, symbolStatus)
OLDER(cuStreamBeginCapture_ptsz, cuStreamBeginCapture, (CUstream hStream), PER_THREAD(hStream))
OLDER(cuStreamUpdateCaptureDependencies_ptsz, cuStreamUpdateCaptureDependencies,
      (CUstream hStream, CUgraphNode *dependencies, size_t numDependencies, unsigned int flags), PER_THREAD(hStream),
      dependencies, numDependencies, flags)
OLDER(cuGraphAddNode, cuGraphAddNode_v2,
      (CUgraphNode * phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies,
       CUgraphNodeParams *nodeParams),
      phGraphNode, hGraph, dependencies, NULL, numDependencies, nodeParams)
/* Kernel nodes before they could name a CUkernel and a context. */
static CUDA_KERNEL_NODE_PARAMS newer(const CUDA_KERNEL_NODE_PARAMS_v1 *older)
{
	return (CUDA_KERNEL_NODE_PARAMS){
		.func = older->func,
		.gridDimX = older->gridDimX,
		.gridDimY = older->gridDimY,
		.gridDimZ = older->gridDimZ,
		.blockDimX = older->blockDimX,
		.blockDimY = older->blockDimY,
		.blockDimZ = older->blockDimZ,
		.sharedMemBytes = older->sharedMemBytes,
		.kernelParams = older->kernelParams,
		.extra = older->extra,
	};
}

EXPORT CUresult cuGraphAddKernelNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
				     size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_KERNEL_NODE_PARAMS params = newer(nodeParams);
	return cuGraphAddKernelNode_v2(phGraphNode, hGraph, dependencies, numDependencies, &params);
}

EXPORT CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_KERNEL_NODE_PARAMS params = newer(nodeParams);
	return cuGraphKernelNodeSetParams_v2(hNode, &params);
}

EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
					       const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	CUDA_KERNEL_NODE_PARAMS params = newer(nodeParams);
	return cuGraphExecKernelNodeSetParams_v2(hGraphExec, hNode, &params);
}

EXPORT CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
	CUDA_KERNEL_NODE_PARAMS params;
	if (!nodeParams)
		return CUDA_ERROR_INVALID_VALUE;
	TRY(cuGraphKernelNodeGetParams_v2(hNode, &params));
	memcpy(nodeParams, &params, sizeof *nodeParams); /* the newer one begins like it */
	return CUDA_SUCCESS;
}
