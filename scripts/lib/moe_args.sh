# shellcheck shell=bash disable=SC2034
# MOE_ARGS: all in which dense models and routing methods differ. Sourced, never run.

MOE_ARGS=()
if [[ $METHOD != dense ]]; then
  # Experts, k and width as they are at granularity 1: --moe-granularity splits the experts itself.
  MOE_ARGS=(--num-experts "$NUM_EXPERTS" --moe-router-topk "$TOPK" --moe-granularity "$GRANULARITY"
    --moe-ffn-hidden-size "$FFN_HIDDEN_SIZE" --moe-router-dtype fp32 --moe-token-dispatcher-type alltoall)
  if [[ ${MOE_GROUPED_GEMM:-1} != 0 ]]; then
    MOE_ARGS+=(--moe-grouped-gemm) # TransformerEngine's, else torch's; Megatron alone ignores it without TransformerEngine
  fi
fi
case $METHOD in
  dense) ;;
  moe) MOE_ARGS+=(--moe-router-pre-softmax --moe-router-load-balancing-type aux_loss) ;;
  remoe) MOE_ARGS+=(--moe-relu-routing) ;;
  *) MOE_ARGS+=(--moe-routing "$METHOD") ;;
esac
case $METHOD in
  moe | topk | topk-warmup | sparsemixer) MOE_ARGS+=(--moe-aux-loss-coeff "${AUX_LOSS_COEFF:-0.01}") ;;
  remoe | relu | relu-l1) MOE_ARGS+=(--moe-relu-l1-reg-coeff-init "${L1_COEFF_INIT:-1e-8}"
    --moe-relu-l1-reg-coeff-multiplier "${L1_COEFF_MULTIPLIER:-1.2}") ;;
esac
