"""What a trained model's routers are set to from text: pure functions over recorded tensors.

=====================  ==========================================  ==================
from                   to                                          where
=====================  ==========================================  ==================
a TopK model's gates   a ReLU router that follows them             `router_fit`
one dense FFN          a ReLU router over copies of it             `clusters`
a ReLU router          another number of active experts            `threshold`
=====================  ==========================================  ==================
"""

from remoe.calibration.clusters import cluster_gates, even_gates, fit_router_to_clusters
from remoe.calibration.router_fit import RouterFit, fit_relu_router
from remoe.calibration.threshold import threshold_for_active_experts

__all__ = [
    "RouterFit",
    "cluster_gates",
    "even_gates",
    "fit_relu_router",
    "fit_router_to_clusters",
    "threshold_for_active_experts",
]
